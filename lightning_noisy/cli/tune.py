"""The search over arguments: chosen by noisy validation accuracy, then trained on all data."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_noisy.cli.parser import CommandParser, config_hashes
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.files import Made, check_writable
from lightning_noisy.requirements import check_tune
from lightning_noisy.tuning import ALL_DATA, TRIAL, Fit
from lightning_noisy.tuning.space import Space, grid_of, read_space

if TYPE_CHECKING:
    from lightning_noisy.tuning.proposals import Proposals

_DESCRIPTION = """\
Run `fit` for points of a search with a part of the training set, its noisy labels and all, kept for validation; choose
the point of the highest noisy validation accuracy in the last epoch, and train on all data with its values. What else
is on the command line is for `fit`.

  --search model.loss.q=0.5,0.7                 values: a grid of them, or drawn from
  --search model.optimizer.lr=1e-4..1e-1:log    a range, for `--sampler tpe` or `random`; `:int` for whole numbers

Started again, it goes on. Started several times at once, on one machine or on several that share the folder, the
processes share the trials; what one leaves unfinished when it dies, another takes up."""
_JOURNAL = "journal.log"


def tune(arguments: Sequence[str], fit: Fit) -> dict[str, Any]:
    """Choose arguments by noisy validation accuracy, and train with them on all data.

    That is how the papers choose what their tables hold (DAL: on a tenth of the training set, which is noisy as well).
    Clean labels choose nothing. Of equally good points the first is chosen. Noise, split and order are the same for
    all, as far as the seed is. A grid, and the number of trials, may grow between two starts.

    Args:
        arguments: Those of the command, in any order between those of ``fit``.
        fit: Trains with arguments of ``fit``.

    Returns:
        What is in ``results.json``: ``points``, each with its ``values``, ``state``, ``score``, ``folder``, ``epochs``
        and ``error``; ``chosen``; and ``retrained``, None where another process trains on all data.

    Raises:
        NoisyLabelError: Optuna is missing; a search that cannot be read; an argument outside its range; a folder with
            another search; a metric that is not logged; or no point that was trained to its end.
    """
    check_tune()
    options, given = _parser().parse_known_args(arguments)
    _check(options)
    proposals = _proposals(options, read_space(options.search))
    output = Path(options.output)
    _check_output(output)
    asked, made = _asked(options, given), Made(output)

    from lightning_noisy.tuning.journal import Journal
    from lightning_noisy.tuning.worker import Worker

    journal = Journal(output / _JOURNAL)
    worker = Worker(fit, given, output, journal, options.monitor, options.val_fraction, options.pruner, asked)
    try:
        return worker.run(proposals)
    except (NoisyLabelError, SystemExit):
        if journal.is_idle():
            made.remove()
        raise


def _parser() -> CommandParser:
    parser = CommandParser("tune", _DESCRIPTION)
    parser.add_argument("--search", action="append", default=[], metavar="NAME=WHAT", help="see above; may come again")
    parser.add_argument("--sampler", choices=("grid", "random", "tpe"), default="grid", help="(%(default)s)")
    parser.add_argument("--sampler_seed", type=int, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("--trials", type=int, metavar="N", help="of all processes together; a grid has its own number")
    pruners = ("none", "median", "hyperband")
    parser.add_argument("--pruner", choices=pruners, default="none", help="stops poor runs early (%(default)s)")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share kept for validation (%(default)s)")
    parser.add_argument("--monitor", default="val/acc", help="what chooses (%(default)s)")
    parser.add_argument("--output", default="runs/tune", help="folder of journal, runs and results (%(default)s)")
    return parser


def _check(options: Namespace) -> None:
    check_argument(0 < options.val_fraction < 1, "val_fraction", "a float in (0, 1)", options.val_fraction)
    check_argument(options.monitor.startswith("val/acc"), "monitor", "'val/acc' or 'val/acc_top5'", options.monitor)
    check_count(options.sampler_seed, "sampler_seed", least=0, most=2**31)
    if options.sampler == "grid":
        wanted = "left out: a grid has a trial for each of its points"
        check_argument(options.trials is None, "trials", wanted, options.trials)
    else:
        check_count(options.trials, "trials")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise NoisyLabelError("`tune` begins the processes of a run itself: start it without torchrun or srun.")


def _check_output(output: Path) -> None:
    """Refuse a folder that cannot be written, or has runs of something else."""
    check_writable(output / _JOURNAL, "output")
    runs = [path for name in (TRIAL, ALL_DATA) for path in output.glob(f"{name}_*")]
    if runs and not (output / _JOURNAL).exists():
        raise NoisyLabelError(f"'{runs[0]}' is there, but no search that made it: give another `--output`.")


def _asked(options: Namespace, given: list[str]) -> dict[str, Any]:
    """What all processes of a search have in common."""
    common = {"val_fraction": options.val_fraction, "monitor": options.monitor, "pruner": options.pruner}
    drawn = {} if options.sampler == "grid" else {"search": options.search, "sampler_seed": options.sampler_seed}
    configs = list(config_hashes(given).values())
    return {"arguments": given, "configs": configs, **common, "sampler": options.sampler, **drawn}


def _proposals(options: Namespace, space: Space) -> Proposals:
    points = grid_of(space) if options.sampler == "grid" else None

    from lightning_noisy.tuning.proposals import Drawing, Listing

    if points is not None:
        return Listing(points)
    return Drawing(space, options.sampler, options.sampler_seed, options.trials)
