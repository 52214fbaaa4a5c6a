"""Table and picture of ``benchmarks.sensitivity``."""

from __future__ import annotations

import statistics
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.grid import spread
from benchmarks.sweeps import Sweep, point_name

Curves = dict[tuple[str, str], list[list[float]]]
"""Accuracies by epoch, a list for each seed, by the name of the point and the noise."""


def table(sweep: Sweep, record: dict[str, Any]) -> str:
    """Last and best epochs in per cent, a table for each panel, with the places that have runs under every noise."""
    curves, noises = _curves(record)
    parts = []
    for panel in sweep.panels:
        columns = ["method", panel, *(f"{noise}, {epoch}" for noise in noises for epoch in ("last", "best")), "seeds"]
        lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        for line in sweep.lines:
            for label in sweep.panels[panel]:
                name = point_name(line, sweep.arguments(panel, label))
                found = [curves.get((name, noise), []) for noise in noises]
                if all(found):
                    seeds = sorted({str(len(seen)) for seen in found})
                    cells = [cell for seen in found for cell in (_last(seen), _best(seen))]
                    lines.append(f"| {line} | {label} | {' | '.join(cells)} | {' to '.join(seeds)} |")
        if len(lines) > 2:
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def figure(sweep: Sweep, record: dict[str, Any]) -> Figure:
    """A row for each noise, a column for each panel: last epochs of all seeds, their mean, and that of best epochs."""
    curves, noises = _curves(record)
    drawn = Figure(figsize=(3.4 * len(sweep.panels) + 1.0, 2.4 * len(noises) + 0.8), layout="constrained")
    rows = drawn.subplots(len(noises), len(sweep.panels), sharey="row", squeeze=False)
    for row, noise in zip(rows, noises, strict=True):
        for axes, panel in zip(row, sweep.panels, strict=True):
            for number, line in enumerate(sweep.lines):
                _draw(axes, sweep, panel, line, noise, curves, f"C{number}")
            labels = list(sweep.panels[panel])
            axes.set_xticks(range(len(labels)), labels, fontsize=8)
            axes.set_xlabel(panel)
            axes.set_title(noise, fontsize=10)
            axes.grid(axis="y", linewidth=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("clean test accuracy, %")
    handles, names = rows[0][0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside upper right", ncols=len(names), frameon=False, fontsize=8)
    drawn.suptitle("last epoch: seeds (dots), mean (line); best epoch (dashed)", fontsize=8, x=0.01, ha="left")
    return drawn


def _draw(axes: Axes, sweep: Sweep, panel: str, line: str, noise: str, curves: Curves, color: str) -> None:
    names = [point_name(line, sweep.arguments(panel, label)) for label in sweep.panels[panel]]
    seen = {place: curves[name, noise] for place, name in enumerate(names) if (name, noise) in curves}
    last = {place: [100 * curve[-1] for curve in found] for place, found in seen.items()}
    best = [100 * statistics.mean(map(max, found)) for found in seen.values()]
    axes.plot(list(last), [statistics.mean(values) for values in last.values()], color=color, label=line)
    axes.plot(list(last), best, color=color, linewidth=0.8, linestyle="--")
    for place, values in last.items():
        axes.plot([place] * len(values), values, ".", color=color, markersize=4)


def _curves(record: dict[str, Any]) -> tuple[Curves, list[str]]:
    """The curves, and the noises in alphabetical order."""
    curves: Curves = {}
    for seen in record["runs"].values():
        curves.setdefault((seen["method"], seen["noise"]), []).append(seen["accuracy"])
    return curves, sorted({noise for _, noise in curves})


def _last(seen: list[list[float]]) -> str:
    return spread([curve[-1] for curve in seen])


def _best(seen: list[list[float]]) -> str:
    return spread([max(curve) for curve in seen])
