"""The search over arguments: chosen by noisy validation accuracy, then trained on all data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_noisy.cli.parser import CommandParser, config_hashes
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.files import written_aside
from lightning_noisy.trainer_access import run_folder

Values = dict[str, str]
"""A point of the grid: name of an argument -> its value, as on the command line."""

_DESCRIPTION = """\
Run `fit` for each point of a grid with a part of the training set, its noisy labels and all, kept for validation;
choose the point of the highest noisy validation accuracy in the last epoch, and train on all data with its values.
What else is on the command line is for `fit`. Started again, it goes on: finished runs are kept in the results file."""


def tune(arguments: Sequence[str], fit: Callable[[list[str]], Trainer]) -> dict[str, Any]:
    """Choose arguments by noisy validation accuracy, and train with them on all data.

    That is how the papers choose what their tables hold (DAL: on a tenth of the training set, which is noisy as well).
    Clean labels choose nothing. Of equally good points the first is chosen. Noise, split and order are the same for
    all, as far as the seed is. The results file is written after each run; the grid may grow between two starts.

    Args:
        arguments: Those of the command: ``--search NAME=VALUE,VALUE...`` for each argument that is searched (values
            without commas), ``--val_fraction``, ``--monitor`` and ``--results``, in any order between those of ``fit``.
        fit: Trains with arguments of ``fit``, and returns the Trainer.

    Returns:
        What is in the results file: ``points``, each with its ``values``, ``score`` and ``folder``, ``chosen`` and
        ``retrained``.

    Raises:
        NoisyLabelError: A search that cannot be read; an argument outside its range; results of another command in the
            results file; or a metric that is not logged.
    """
    options, given = _parser().parse_known_args(arguments)
    check_argument(0 < options.val_fraction < 1, "val_fraction", "a float in (0, 1)", options.val_fraction)
    check_argument(options.monitor.startswith("val/acc"), "monitor", "'val/acc' or 'val/acc_top5'", options.monitor)
    grid, path = search_grid(options.search), Path(options.results)
    asked = {"arguments": given, "configs": config_hashes(given), "val_fraction": options.val_fraction}
    record = _begin(path, {**asked, "monitor": options.monitor})
    validation = ["--data.noisy_val", "true", "--data.val_fraction", str(options.val_fraction)]
    for number, values in enumerate(grid, start=1):
        if not _points(record, [values]):
            _say(f"Point {number} of {len(grid)}: {_shown(values)}")
            trainer = fit([*given, *_as_arguments(values), *validation])
            score, folder = _score(trainer, options.monitor), run_folder(trainer)
            record["points"].append({"values": values, "score": score, "folder": folder})
            _write(path, record)
    points = _points(record, grid)
    record["chosen"] = max(points, key=lambda point: float(point["score"]))["values"]
    _write(path, record)
    _say(_table(points, record["chosen"], options.monitor))
    if record["retrained"] is None or record["retrained"]["values"] != record["chosen"]:
        _say(f"Training on all data: {_shown(record['chosen'])}")
        trainer = fit([*given, *_as_arguments(record["chosen"]), "--data.val_fraction", "0"])
        record["retrained"] = {"values": record["chosen"], "folder": run_folder(trainer)}
        _write(path, record)
    _say(f"Results: {path}; trained on all data: {record['retrained']['folder']}")
    return record


def search_grid(searches: Sequence[str]) -> list[Values]:
    """All combinations of the values, the last argument fastest.

    Args:
        searches: ``<name>=<value>,<value>,...`` for each argument.

    Raises:
        NoisyLabelError: There is none, one that is written in another way, or an argument or value twice.
    """
    axes: dict[str, list[str]] = {}
    wanted = "`<name>=<value>,<value>,...`, each argument and value once, e.g. `model.loss.q=0.5,0.7`"
    check_argument(len(searches) > 0, "search", wanted, None)
    for search in searches:
        name, _, listed = search.partition("=")
        values = listed.split(",")
        plain = bool(name) and not name.startswith("-") and all(values) and len(set(values)) == len(values)
        check_argument(plain and name not in axes, "search", wanted, search)
        axes[name] = values
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _parser() -> CommandParser:
    parser = CommandParser("tune", _DESCRIPTION)
    parser.add_argument("--search", action="append", default=[], metavar="NAME=VALUE,VALUE...", help="may come again")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share kept for validation (%(default)s)")
    parser.add_argument("--monitor", default="val/acc", help="what chooses (%(default)s)")
    parser.add_argument("--results", default="runs/tune.json", help="results file (%(default)s)")
    return parser


def _begin(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The results so far. That they can be written is asked before the first run, not after it."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    writable = path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()
    check_argument(writable, "results", "the name of a file that can be written", str(path))
    if not path.exists():
        return {**asked, "points": [], "chosen": None, "retrained": None}
    try:
        read = json.loads(path.read_text())
    except ValueError:
        read = None
    record: dict[str, Any] = read if isinstance(read, dict) else {}
    changed = [name for name, value in asked.items() if record.get(name) != value]
    if changed:
        raise NoisyLabelError(
            f"'{path}' does not hold the results of this search (other {', '.join(changed)}): give `--results` another "
            "path, or remove the file."
        )
    return record


def _points(record: dict[str, Any], grid: Sequence[Values]) -> list[dict[str, Any]]:
    """The finished ones among the points of a grid, in its order."""
    return [point for values in grid for point in record["points"] if point["values"] == values]


def _as_arguments(values: Values) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]  # in one: a value may look like an option, -1e-3


def _score(trainer: Trainer, monitor: str) -> float:
    metrics = trainer.callback_metrics
    logged = ", ".join(sorted(name for name in metrics if name.startswith("val/acc"))) or "none was logged"
    check_argument(monitor in metrics, "monitor", f"a noisy validation accuracy ({logged})", monitor)
    return float(metrics[monitor])


def _shown(values: Values) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _table(points: Sequence[dict[str, Any]], chosen: Values, monitor: str) -> str:
    """A row for each point."""
    width = max(len(_shown(point["values"])) for point in points)
    lines = [f"{'':<{width}}  noisy {monitor}"]
    for point in points:
        mark = "  chosen" if point["values"] == chosen else ""
        lines.append(f"{_shown(point['values']):<{width}}  {100 * point['score']:6.2f} %  {point['folder']}{mark}")
    return "\n".join(["", *lines, ""])


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def _write(path: Path, record: dict[str, Any]) -> None:
    with written_aside(path) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
