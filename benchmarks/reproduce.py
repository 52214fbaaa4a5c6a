"""The papers' tables again: cells at their published settings, each a run of the package's own recipes.

    python -m benchmarks.reproduce --list
    python -m benchmarks.reproduce "DCM, table 1" --cells "ANL-DFC / symmetric 80" --ratio 0.3 0.5 0.7 --jobs 3
    python -m benchmarks.reproduce --jobs 4 --budget 30

The first says what there is and what is done, the second trains cells of a table, the last what is due: DCM's masking
ratio first, then table after table (``cells.AGENDA``). Tables, methods and columns are called as in docs/recipes.md.
The name of a recipe is a table too, with the noises of CIFAR-10 as its cells. What follows a ``--`` is for ``fit``.

Each run is a process of ``lightning-noisy fit``. When the budget is over, or on Ctrl-C, those that run write a
checkpoint, and the next call goes on there; where a process died, it goes on at the last checkpoint. A run that is
finished goes into the record and is not done again: to repeat it, remove it there, and its folder. ``python -m
docs.results`` makes docs/results.md of the record.

Runs side by side share a GPU; the seconds in the record tell whether that is faster. ``--toy`` goes through all of it
in seconds on a CPU, with a small network, made-up images and two epochs, and records nothing.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import AGENDA, Cell, Step, Training, published_cells, select
from benchmarks.record import RESULTS, read_record, write_record
from benchmarks.run_maker import RunMaker
from benchmarks.runs import Part, Run, train, turn
from lightning_noisy.cli.compare import seeds
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.reports.comparison import SUMMARY, Summary, read_summary

RECORD = RESULTS / "reproduce.json"
LAST = 10
"""Epochs of the average."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is not done, or say what there is.

    Raises:
        SystemExit: With code 2 and one line for what cannot be used, with 1 where a run has failed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    place = words.index("--") if "--" in words else len(words)
    given = _parser().parse_args(words[:place])
    try:
        if given.list:
            print("\n".join(listing(given)))
        elif reproduce(given, shlex.join(words[place + 1 :])):
            sys.exit(1)
    except NoisyLabelError as error:
        print(f"reproduce: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def reproduce(given: argparse.Namespace, options: str) -> list[Run]:
    """Train what is not done.

    Args:
        given: What the command line says.
        options: Further arguments of ``fit``.

    Returns:
        The runs that have failed.
    """
    check_argument(given.jobs >= 1, "jobs", "an int >= 1", given.jobs)
    check_argument(given.budget is None or given.budget > 0, "budget", "minutes, more than 0", given.budget)
    whole = given.table is not None or not (given.cells or given.ratio)
    check_argument(whole, "TABLE", "given where `--cells` or `--ratio` is", given.table)
    check_argument(all(0 <= ratio < 1 for ratio in given.ratio), "ratio", "floats in [0, 1)", given.ratio)
    maker = RunMaker(given.output / "toy" if given.toy else given.output, Path(given.root), given.toy)
    runs = [maker.make(training, seed) for training, seed in _due(given, options)]
    recorded = {} if given.toy else _recorded(given.results)
    left = [run for run in runs if run.name not in recorded and not _collected(run, given)]
    ready = _with_data(maker, left, every=given.table is not None)
    failed: list[Run] = []

    def ended(part: Part) -> None:
        run = part.run
        if _collected(run, given):
            _say(f"done: {run.name}: {_shown(entry(run))}")
        elif part.asked_to_stop:
            _say(f"stopped, to go on with the next call: {run.name}")
        else:
            failed.append(run)
            _say(f"failed: {run.name}: {part.said} See '{run.log}'.")

    _say(f"{len(runs)} runs, {len(left)} of them to do.")
    for run in train(ready, given.jobs, given.budget and 60 * given.budget, ended):
        _say(f"another process is at it: {run.name}")
    return failed


def listing(given: argparse.Namespace) -> Iterator[str]:
    """Lines that name tables, or the cells of one, and what is done of them."""
    done: dict[tuple[str, str], list[str]] = {}
    for name, run in _recorded(given.results).items():
        done.setdefault((run["recipe"], run["arguments"]), []).append(name)
    if given.table is not None:
        for cell in select(given.table, given.cells):
            runs = "; ".join(done.get((cell.recipe, cell.arguments), ["not done"]))
            yield f"{cell.name}: {cell.published or 'no published figure'}; {runs}"
        return
    for title, cells in tables().items():
        count = sum((cell.recipe, cell.arguments) in done for cell in cells)
        yield f"{title}: {count} of {len(cells)} cells done"
    yield "Due, in this order:"
    yield from (", ".join([step.table, *step.cells]) for step in AGENDA)


def tables() -> dict[str, list[Cell]]:
    """The cells of each table."""
    found: dict[str, list[Cell]] = {}
    for cell in published_cells():
        found.setdefault(cell.table, []).append(cell)
    return found


def entry(run: Run) -> dict[str, Any]:
    """What the record has of a finished run: best, last and average of each metric, and where they come from."""
    summary = read_record(run.folder / SUMMARY)
    names = dict.fromkeys(name for seen in summary["epochs"].values() for name in seen)
    seen = {name: read_summary(run.folder / SUMMARY, name) for name in names}
    shared = ("device", "at_once", "commit", "torch", "lightning")
    return {
        "recipe": run.training.recipe,
        "arguments": run.training.arguments,
        "ratio": run.training.ratio,
        "options": run.training.options,
        "seed": run.seed,
        "metrics": {name: _figures(one) for name, one in seen.items()},
        "epochs": len(summary["epochs"]),
        "averaged": min(LAST, len(summary["epochs"])),
        "realized_noise_rate": summary["realized_noise_rate"],
        "seconds": _seconds(run.parts),
        **{key: _joined(part[key] for part in run.parts) for key in shared},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="of a paper, or a recipe; without: what is due")
    parser.add_argument("--cells", nargs="+", default=[], metavar="CELL", help="parts of names: 'ANL / symmetric 80'")
    parser.add_argument("--ratio", nargs="+", type=float, default=[], help="masking ratios, where a cell has masks")
    parser.add_argument("--seeds", default="0", help="as 0-2 or 0,3 (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="after which what runs is stopped")
    parser.add_argument("--root", default="data", help="folder of the data sets (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce"), help="folder of the runs (%(default)s)")
    parser.add_argument("--results", type=Path, default=RECORD, help="the record (%(default)s)")
    parser.add_argument("--list", action="store_true", help="say what there is, and what is done")
    parser.add_argument("--toy", action="store_true", help="small, with made-up data; nothing is recorded")
    return parser


def _due(given: argparse.Namespace, options: str) -> list[tuple[Training, int]]:
    """What is asked for, in order, each once; all cells of a step with one seed before the next."""
    steps = AGENDA if given.table is None else (Step(given.table, tuple(given.cells), tuple(given.ratio)),)
    found = [
        (training, seed)
        for step in steps
        for seed in seeds(given.seeds)
        for cell in select(step.table, step.cells)
        for training in cell.trainings(step.ratios, options)
    ]
    return list(dict.fromkeys(found))


def _with_data(maker: RunMaker, runs: Sequence[Run], every: bool) -> list[Run]:
    """The runs whose data are there. For the others it is said how to get them, or raised where every one is wanted."""
    ready, lacking = [], dict[str, NoisyLabelError]()
    for run in runs:
        try:
            maker.provide(run)
            ready.append(run)
        except NoisyLabelError as error:
            lacking[str(error)] = error
    for line, error in lacking.items():
        if every or not ready:
            raise error
        _say(f"left out: {line}")
    return ready


def _recorded(results: Path) -> dict[str, dict[str, Any]]:
    try:
        runs: dict[str, dict[str, Any]] = read_record(results).get("runs", {})
        whole = all({"recipe", "arguments"} <= run.keys() for run in runs.values())
    except (ValueError, AttributeError):  # no JSON, or of another form
        whole = False
    if not whole:
        raise NoisyLabelError(f"'{results}' is no record of this script: mend it, or move it away.")
    return runs


def _collected(run: Run, given: argparse.Namespace) -> bool:
    """Whether a run is finished, and then it is recorded."""
    if run.job.done and not given.toy:
        with turn(given.results.parent):
            write_record(given.results, {"runs": {**_recorded(given.results), run.name: entry(run)}})
    return run.job.done


def _figures(seen: Summary) -> dict[str, float]:
    return {"best": seen.best, "last": seen.values[-1], "average": seen.mean_last(LAST)}


def _seconds(parts: Sequence[dict[str, Any]]) -> float | None:
    """Of all parts; None where one of them was not seen to end."""
    seconds = [part["seconds"] for part in parts]
    return None if None in seconds or not seconds else round(sum(seconds), 1)


def _joined(values: Iterable[Any]) -> str:
    """What all parts of a run say, or each of them."""
    return ", then ".join(dict.fromkeys(map(str, values)))


def _shown(done: dict[str, Any]) -> str:
    seen = done["metrics"]["test/acc"]
    seconds = "" if done["seconds"] is None else f", {done['seconds']:.0f} s"
    return f"last {100 * seen['last']:.2f} %, best {100 * seen['best']:.2f} %{seconds}"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()
