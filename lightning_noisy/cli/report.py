"""``lightning-noisy report``: which labels look wrong, from the checkpoint of a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_noisy.callbacks.label_issue_report import check_image_root, pictures_below
from lightning_noisy.callbacks.saved_report import report_of
from lightning_noisy.checkpoints.check import read_checkpoint
from lightning_noisy.checkpoints.last import last_checkpoint_of, run_folder_of
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.files import check_writable
from lightning_noisy.reports.report import TABLE

_DESCRIPTION = """\
Write the report of a run that has ended, without training: the list of labels that look wrong, the page, the corrected
labels, as `LabelIssueReport` writes them at the end of a fit. RUN is the run's folder, whose last checkpoint is taken,
or a checkpoint, of a run with the callback `LabelIssueReport` or `TrainingDynamics`; or what a loop without Lightning
has saved (`NoisyLoop.state_dict()`)."""


def report(arguments: Sequence[str]) -> Path:
    """Run the command.

    Args:
        arguments: Those of the command, without its name.

    Returns:
        The folder of the report.

    Raises:
        NoisyLabelError: No checkpoint, one without training dynamics, or an output that cannot be written.
    """
    given = _parser().parse_args(arguments)
    safe = given.weights_only == "true"
    checkpoint = last_checkpoint_of(Path(given.run).expanduser(), safe)
    run = run_folder_of(checkpoint)
    output = Path(given.output or run / "label_issues").expanduser()
    check_writable(output / TABLE, "output")
    saved = report_of(read_checkpoint(checkpoint, safe), given.criterion)
    saved.facts.title = saved.facts.title or run.name
    paths = saved.facts.kind == "path"
    if given.image_root is not None:
        if not paths:
            raise NoisyLabelError("The samples of this run are rows, not paths: leave out `--image_root`.")
        check_image_root(given.image_root)
        saved.facts.root = given.image_root
    saved.write(output, pictures_below(saved.facts.root, saved.facts.samples) if paths else None)
    return output


def _parser() -> CommandParser:
    parser = CommandParser("report", _DESCRIPTION)
    parser.add_argument("run", metavar="RUN", help="the run's folder, or a checkpoint")
    parser.add_argument("--output", metavar="DIR", help="where all goes (RUN/label_issues)")
    parser.add_argument("--image_root", metavar="DIR", help="folder of the pictures (that of the run)")
    parser.add_argument("--criterion", metavar="NAME", help="which, where callbacks look at several")
    trusted = "false loads a checkpoint that holds objects, which may run code: if you trust it (%(default)s)"
    parser.add_argument("--weights_only", choices=("true", "false"), default="true", help=trusted)
    return parser
