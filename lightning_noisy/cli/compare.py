"""``lightning-noisy compare``: configurations or finished runs, over seeds, in one table and one figure."""

from __future__ import annotations

import json
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.cli.trainings import Job, train
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.files import check_writable, written_aside
from lightning_noisy.recipes import config_chain, run_name
from lightning_noisy.reports.comparison import (
    SUMMARY,
    Row,
    Summary,
    compare,
    comparison_figure,
    comparison_table,
    read_summary,
)

_DESCRIPTION = """\
Compare configurations or runs. A configuration (a file or a recipe) is trained once for each seed; a folder is searched
for the `summary.json` of runs that are done. Started again, it does not repeat what is finished. What follows a `--` is
for `fit`: `lightning-noisy compare quickstart quickstart_ce --seeds 0-4 --jobs 2 -- --trainer.max_epochs 20`."""
_MOST = 1000  # seeds


def compare_runs(arguments: Sequence[str]) -> list[Row]:
    """Train what is not trained yet, and say how all compare.

    Args:
        arguments: Those of the command.

    Returns:
        The rows of the table, the best first.

    Raises:
        NoisyLabelError: Nothing to compare, a name that is no configuration and no folder of runs, two of one name, a
            folder of results that were asked for with other arguments, or a training that failed.
    """
    own, rest = _split(arguments)
    options = _parser().parse_args(own)
    check_argument(options.jobs >= 1, "jobs", "an int >= 1", options.jobs)
    check_argument(options.last >= 1, "last", "an int >= 1", options.last)
    output = Path(options.output)
    check_writable(output / "comparison.md", "output")
    groups = _groups(options, output, rest)
    train([job for jobs in groups.values() for job in jobs if isinstance(job, Job)], options.jobs)
    paths = {
        name: [job.folder / SUMMARY if isinstance(job, Job) else job for job in jobs] for name, jobs in groups.items()
    }
    runs = {name: [read_summary(path, options.metric) for path in found] for name, found in paths.items()}
    metric = _one_metric(runs)
    rows = compare(runs, options.last)
    table = comparison_table(rows, options.last)
    with written_aside(output / "comparison.md") as file:
        file.write((table + "\n").encode())
    with written_aside(output / "comparison.png") as file:
        comparison_figure(rows, metric).savefig(file, format="png", dpi=140)
    print(f"\n{table}\n\nTable and figure: {output / 'comparison.md'}, {output / 'comparison.png'}")
    return rows


def seeds(text: str) -> list[int]:
    """Seeds that are written as ``0-4`` or ``0,3,7``.

    Raises:
        NoisyLabelError: They are written in another way, or one is there twice.
    """
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    few = sum(last - first + 1 for first, last in ends) <= _MOST
    found = [seed for first, last in ends for seed in range(first, last + 1)] if few else []
    readable = None not in parts and len(found) > 0 and len(set(found)) == len(found)
    check_argument(readable, "seeds", f"different seeds, at most {_MOST}, as 0-4 or 0,3,7", text)
    return found


def _parser() -> CommandParser:
    parser = CommandParser("compare", _DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="configuration, recipe, or folder of finished runs")
    parser.add_argument("--seeds", default="0", help="of configurations, as 0-4 or 0,3,7 (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (%(default)s)")
    parser.add_argument("--metric", help="what is compared (what the runs report)")
    parser.add_argument("--last", type=int, default=5, help="epochs of the mean (%(default)s)")
    parser.add_argument("--output", default="runs/comparison", help="where all goes (%(default)s)")
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what stands after ``--``."""
    words = list(arguments)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _groups(options: Namespace, output: Path, rest: Sequence[str]) -> dict[str, list[Job | Path]]:
    """The trainings, or the summaries, of each of the names."""
    groups: dict[str, list[Job | Path]] = {}
    for run in options.runs:
        folder = Path(run)
        name = folder.resolve().name if folder.is_dir() else run_name([f"--config={run}"]) or run
        found: dict[str, list[Job | Path]]
        if folder.is_dir():
            found = _finished(folder, name)
        else:
            config_chain(run)  # refuses what is none
            place, wanted = output / name, seeds(options.seeds)
            found = {name: [Job(run, seed, place / f"seed_{seed}", tuple(rest)) for seed in wanted]}
        twice = next((one for one in found if one in groups), None)
        if twice is not None:
            raise NoisyLabelError(f"Two of the runs are called '{twice}': give one of them another name.")
        groups |= found
    return groups


def _finished(folder: Path, name: str) -> dict[str, list[Job | Path]]:
    """The summaries of finished runs, together where they differ in nothing but the seed.

    Of several runs of one configuration with one seed the latest counts, which is said.
    """
    found = sorted(folder.rglob(SUMMARY), key=lambda path: path.stat().st_mtime)
    if not found:
        raise NoisyLabelError(f"'{folder}' has no {SUMMARY}, in it or below: RunSummary writes it when a run ends.")
    alike: dict[str, dict[str, Path]] = {}
    for path in found:
        seed, rest = _configuration(path.parent)
        runs = alike.setdefault(rest, {})
        if seed in runs:
            print(f"'{runs[seed].parent}' and '{path.parent}' are the same run: the latter, which is newer, counts.")
        runs[seed] = path
    groups: list[list[Job | Path]] = [list(runs.values()) for runs in alike.values()]
    if len(groups) == 1:
        return {name: groups[0]}
    places = [_common(list(runs.values())) for runs in alike.values()]
    if len(set(places)) < len(places):
        places = [next(iter(runs.values())).parent for runs in alike.values()]
    return {f"{name}/{place.relative_to(folder).as_posix()}": runs for place, runs in zip(places, groups, strict=True)}


def _configuration(run: Path) -> tuple[str, str]:
    """The seed of a run, and all else that its ``config.yaml`` says but where logs went. Without one runs are alike."""
    path = run / "config.yaml"
    try:
        settings: Any = yaml.safe_load(path.read_text()) if path.is_file() else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise NoisyLabelError(f"Cannot read '{path}' ({type(error).__name__}).") from error
    if not isinstance(settings, dict):
        return str(run), ""
    seed = str(settings.pop("seed_everything", ""))
    if isinstance(settings.get("trainer"), dict):
        settings["trainer"].pop("logger", None)
    return seed, json.dumps(settings, sort_keys=True, default=str)


def _common(paths: Sequence[Path]) -> Path:
    """The folder of one run, or the one above several."""
    folders = [path.parent for path in paths]
    return folders[0] if len(folders) == 1 else Path(os.path.commonpath(folders))


def _one_metric(runs: Mapping[str, Sequence[Summary]]) -> str:
    """What all of them report."""
    metrics = sorted({seen.metric for summaries in runs.values() for seen in summaries})
    if len(metrics) > 1:
        raise NoisyLabelError(
            f"The runs report {' and '.join(metrics)}: give as `--metric` one that all have logged, or compare those "
            "that report the same."
        )
    return metrics[0]
