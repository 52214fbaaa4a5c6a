"""A search over arguments: its points, which of them is chosen, table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

State = Literal["complete", "pruned", "failed", "running"]
_CHOSEN, _OTHERS, _FAILED = "#c8553d", "#1b6ca8", "#555555"


@dataclass(frozen=True)
class Point:
    """A point of a search, and what came of it."""

    values: Mapping[str, str]
    """Name of an argument -> its value."""

    state: State
    """``pruned`` is stopped early, ``failed`` ended with an error or with its process."""

    score: float | None
    """Noisy validation accuracy in [0, 1] of the last epoch; None without one."""

    folder: str | None
    """Of the run."""

    epochs: Mapping[int, float]
    """Epoch -> noisy validation accuracy, where it was reported."""

    error: str | None = None
    """Why it failed, if it did."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        kept = {"values": dict(self.values), "state": self.state, "score": self.score, "folder": self.folder}
        return {**kept, "epochs": {str(epoch): value for epoch, value in self.epochs.items()}, "error": self.error}


def chosen_point(points: Sequence[Point]) -> Point | None:
    """The first of the highest score among those that are complete, None where none is."""
    complete = [point for point in points if point.state == "complete" and point.score is not None]
    return max(complete, key=lambda point: point.score or 0.0, default=None)


def shown(values: Mapping[str, str]) -> str:
    """A point in a line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def search_table(points: Sequence[Point], monitor: str) -> str:
    """A row for each point, in the order of the search."""
    chosen = chosen_point(points)
    width = max((len(shown(point.values)) for point in points), default=0)
    lines = [f"{'':<{width}}  noisy {monitor}"]
    for point in points:
        score = f"{'-':>8}" if point.score is None else f"{100 * point.score:6.2f} %"
        cells = [f"{shown(point.values):<{width}}", score, point.folder or "", _mark(point, point is chosen)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def search_figure(points: Sequence[Point], monitor: str) -> Figure:
    """How the search went: the score of each point in its order, and the best of those that are complete so far.

    Points that were pruned are hollow, failed ones crosses at the bottom.

    Args:
        points: In the order of the search.
        monitor: Name of the score.
    """
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.subplots()
    chosen = chosen_point(points)
    scored = [(place, point, 100 * point.score) for place, point in enumerate(points, 1) if point.score is not None]
    complete = [(place, score) for place, point, score in scored if point.state == "complete"]
    if complete:
        places = [*(place for place, _ in complete), len(points)]
        best = list(accumulate((score for _, score in complete), max))
        axes.step(places, [*best, best[-1]], where="post", color=_OTHERS, linewidth=1.5, label="best so far")
    groups: dict[str, tuple[list[tuple[int, Point, float]], dict[str, Any]]] = {
        "complete": ([one for one in scored if one[1].state == "complete"], {"color": _OTHERS}),
        "pruned": ([one for one in scored if one[1].state == "pruned"], {"facecolors": "none", "edgecolors": _OTHERS}),
        "chosen": ([one for one in scored if one[1] is chosen], {"color": _CHOSEN, "marker": "D", "s": 60}),
    }
    for label, (group, style) in groups.items():
        if group:
            axes.scatter([place for place, *_ in group], [score for *_, score in group], label=label, zorder=3, **style)
    failed = [place for place, point in enumerate(points, 1) if point.state == "failed"]
    if failed:
        bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.03] * len(failed), "x", color=_FAILED, transform=bottom, label="failed", clip_on=False)
    axes.set_xlim(0.5, max(len(points), 1) + 0.5)
    axes.set_xlabel("trial")
    axes.set_ylabel(f"noisy {monitor} in per cent")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return figure


def _mark(point: Point, is_chosen: bool) -> str:
    if point.state == "complete":
        return "chosen" if is_chosen else ""
    if point.state == "pruned":
        return f"pruned after epoch {max(point.epochs)}" if point.epochs else "pruned"
    return point.state if point.error is None else f"{point.state}: {point.error}"
