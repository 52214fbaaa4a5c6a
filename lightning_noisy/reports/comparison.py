"""Several runs side by side: what their summaries say, over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_noisy.errors import NoisyLabelError

SUMMARY = "summary.json"
_CHOOSES = "val/acc"


@dataclass(frozen=True)
class Summary:
    """One metric of a run by epoch, and which epoch is its best."""

    metric: str
    """Its name."""

    values: tuple[float, ...]
    """In [0, 1], by epoch."""

    best: float
    """The metric in the epoch of the highest validation accuracy; without one its own highest value."""

    chosen: bool
    """Whether a validation accuracy chose the best epoch."""

    def mean_last(self, count: int) -> float:
        """Mean of the last epochs, of all where there are fewer."""
        return statistics.fmean(self.values[-count:])


@dataclass(frozen=True)
class Column:
    """A figure of several runs that differ in their seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None with one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{spread}"


@dataclass(frozen=True)
class Row:
    """What is compared: runs of one configuration."""

    name: str
    last: Column
    best: Column
    mean_last: Column
    chosen: bool
    """Whether a validation accuracy chose the best epochs of all."""


def read_summary(path: Path, metric: str | None = None) -> Summary:
    """What a run says of itself in its ``summary.json``.

    Args:
        path: The file.
        metric: What is compared; None is what the run reports.

    Raises:
        NoisyLabelError: It is no such file, or does not have the metric.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        epochs = [content["epochs"][key] for key in sorted(content["epochs"], key=int)]
        name = metric or content["metric"]
        seen = [{key: float(value) for key, value in epoch.items()} for epoch in epochs if name in epoch]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoisyLabelError(f"'{path}' is not the summary of a run ({type(error).__name__}: {error}).") from error
    if not seen:
        known = ", ".join(sorted({key for epoch in epochs for key in epoch})) or "nothing"
        raise NoisyLabelError(f"'{path}' has no `{name}`, but {known}: give one of these as `--metric`.")
    chosen = all(_CHOOSES in epoch for epoch in seen)
    best = max(seen, key=lambda epoch: float(epoch[_CHOOSES if chosen else name]))
    return Summary(name, tuple(float(epoch[name]) for epoch in seen), float(best[name]), chosen)


def compare(runs: Mapping[str, Sequence[Summary]], last: int) -> list[Row]:
    """A row for each configuration, the highest mean of the last epoch first.

    Args:
        runs: Summaries by configuration, one for each seed.
        last: Of how many last epochs the mean is.
    """
    rows = [
        Row(
            name,
            Column(tuple(seen.values[-1] for seen in summaries)),
            Column(tuple(seen.best for seen in summaries)),
            Column(tuple(seen.mean_last(last) for seen in summaries)),
            all(seen.chosen for seen in summaries),
        )
        for name, summaries in runs.items()
    ]
    return sorted(rows, key=lambda row: -row.last.mean)


def comparison_table(rows: Sequence[Row], last: int) -> str:
    """The rows as Markdown, in per cent: mean and standard deviation over the seeds."""
    best = "best epoch" if all(row.chosen for row in rows) else "best epoch (chosen by the test set)"
    if len({row.chosen for row in rows}) > 1:
        best = "best epoch (some chosen by the test set)"
    head = ["", "last epoch", best, f"mean of last {last}", "runs"]
    cells = [[row.name, str(row.last), str(row.best), str(row.mean_last), str(len(row.last.values))] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [head, *cells]]
    rule = "|".join(["", *("-" * (width + 2) for width in widths), ""])
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], rule, *text[1:]])


def comparison_figure(rows: Sequence[Row], metric: str) -> Figure:
    """The last epoch of each configuration: a point for each seed, mean and standard deviation; the highest on top."""
    figure = Figure(figsize=(7.0, 1.1 + 0.38 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        color = "#1b6ca8" if row is rows[0] else "#555555"
        shares = [100 * value for value in row.last.values]
        axes.plot(shares, [place] * len(shares), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        spread = None if row.last.deviation is None else 100 * row.last.deviation
        axes.errorbar(100 * row.last.mean, place, xerr=spread, fmt="D", color=color, markersize=6, capsize=4)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{metric} of the last epoch in per cent")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
