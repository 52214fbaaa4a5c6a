"""What the records of the benchmarks say of a method."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from benchmarks.compact import read_compact
from benchmarks.record import RESULTS

Run = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """A benchmark: its record, and how it is called."""

    record: str
    title: str
    command: str
    option: str
    """What chooses methods on the command line."""
    noises: dict[str, str] = field(hash=False)
    """Name in the record -> in words."""


FEATURE_NOISES = {
    "aggre": "people's labels, 9 % wrong",
    "worse": "people's labels, 40 % wrong",
    "symmetric 0.6": "60 % symmetric",
}
_FILES = "--features cifar10_embeddings.npz --labels cifar10n.npz"
METHODS = Ground(
    "methods",
    "CIFAR-10 as 192 features, one hidden layer",
    f"python -m benchmarks.methods {_FILES}",
    "--methods",
    FEATURE_NOISES,
)
STRATEGIES = Ground(
    "strategies-embeddings",
    METHODS.title,
    f"python -m benchmarks.strategies {_FILES}",
    "--only",
    FEATURE_NOISES,
)
DIGITS = Ground(
    "strategies-digits",
    "scans of digits, small CNN",
    "python -m benchmarks.strategies",
    "--only",
    {"symmetric 0.4": "40 % symmetric", "symmetric 0.6": "60 % symmetric", "pair flips 0.4": "40 % pair flips"},
)
GROUNDS = (METHODS, STRATEGIES, DIGITS)


@dataclass(frozen=True)
class Measured:
    """One method under one noise, over its seeds; accuracies in per cent."""

    ground: Ground
    method: str
    noise: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """Which were run."""
        return sorted(run["seed"] for run in self.runs)

    @property
    def mean(self) -> float:
        """Of the last epochs."""
        return statistics.fmean(self._last)

    @property
    def spread(self) -> float:
        """Standard deviation of the last epochs; 0 of one."""
        return statistics.stdev(self._last) if len(self.runs) > 1 else 0.0

    @property
    def best(self) -> float:
        """Mean of the best epochs."""
        return statistics.fmean(100 * max(run["accuracy"]) for run in self.runs)

    @property
    def curve(self) -> list[float]:
        """Mean accuracy of each epoch."""
        return [100 * statistics.fmean(values) for values in zip(*(run["accuracy"] for run in self.runs), strict=True)]

    @property
    def last(self) -> str:
        """Mean of the last epochs, with the standard deviation where there are several seeds."""
        return f"{self.mean:.2f}" + (f" ± {self.spread:.2f}" if len(self.runs) > 1 else "")

    @property
    def _last(self) -> list[float]:
        return [100 * run["accuracy"][-1] for run in self.runs]


@cache
def measured(ground: Ground) -> dict[tuple[str, str], Measured]:
    """Everything of a record, by method and noise."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in read_compact(RESULTS / f"{ground.record}.json")["runs"].values():
        groups.setdefault((run["method"], run["noise"]), []).append(run)
    return {key: Measured(ground, *key, tuple(runs)) for key, runs in groups.items()}


def of_method(names: list[str]) -> Iterator[tuple[Ground, list[Measured]]]:
    """The benchmarks that have rows of these names, with the rows, name by name and noise by noise."""
    for ground in GROUNDS:
        table = measured(ground)
        rows = [table[name, noise] for name in names for noise in ground.noises if (name, noise) in table]
        if rows:
            yield ground, rows


def command(ground: Ground, rows: list[Measured]) -> str:
    """What measures these rows again."""
    names = dict.fromkeys(f'"{row.method}"' if " " in row.method else row.method for row in rows)
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return shell(f"{ground.command} {ground.option} {' '.join(names)} --seeds {' '.join(map(str, seeds))}")


def shell(line: str) -> str:
    """A command in lines that fit the page, broken outside its quotes."""
    whole = re.sub('"[^"]*"', lambda quoted: quoted[0].replace(" ", "\0"), line)
    parts = textwrap.wrap(whole, 84, break_long_words=False, break_on_hyphens=False, subsequent_indent="    ")
    return " \\\n".join(parts).replace("\0", " ")


def cost(method: str) -> float:
    """Seconds of the fastest run of a loss or target method, relative to that of cross entropy.

    The machine was busy with other runs, so only the fastest of a method's runs say something. Those of strategies were
    too few for it.
    """
    seconds = {
        name: [run["seconds"] for key, row in measured(METHODS).items() if key[0] == name for run in row.runs]
        for name in (method, "CE")
    }
    return float(min(seconds[method]) / min(seconds["CE"]))
