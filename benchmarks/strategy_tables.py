"""Tables and picture of ``benchmarks.strategies``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.strategy_list import STRATEGIES, Scale

_SELECTION = ("size", "precision", "recall")

Runs = dict[tuple[str, str], list[dict[str, Any]]]
"""Runs by method and noise."""


def tables(record: dict[str, Any]) -> str:
    """Accuracy, what was selected, and the arguments, as Markdown."""
    parts = accuracy_table(record), selection_table(record), argument_table(record)
    return "\n".join(part for part in parts if part.count("\n") > 2)


def accuracy_table(record: dict[str, Any]) -> str:
    """Mean accuracy over the seeds, lowest and highest, and of the best epoch the mean."""
    runs, noises = _grouped(record)
    rows = [
        [
            method,
            *(cell for noise in noises for cell in _accuracies(runs, method, noise)),
            _seeds(runs, [method]),
        ]
        for method in _present(runs)
    ]
    parts = ("last epoch", "a network alone", "best epoch")
    return _markdown(["strategy", *(f"{noise}: {part}" for noise in noises for part in parts), "seeds"], rows)


def summary(record: dict[str, Any], beside: dict[str, Any] | None = None) -> str:
    """Mean accuracy of the last epoch alone.

    Args:
        record: Runs of strategies.
        beside: Runs of losses and target methods under the same noises, of which the best is a row of its own.
    """
    runs, noises = _grouped(record)
    rows = [
        [method, *(_mean_last(runs.get((method, noise), [])) for noise in noises), _seeds(runs, [method])]
        for method in _present(runs)
    ]
    if beside is not None:
        others = _grouped(beside)[0]
        best = [max((_mean_last(seen), key[0]) for key, seen in others.items() if key[1] == noise) for noise in noises]
        cells = [f"{mean} ({method})" for mean, method in best]
        rows.append(["best loss or target method", *cells, _seeds(others, [method for _, method in best])])
    return _markdown(["strategy", *noises, "seeds"], rows)


def selection_table(record: dict[str, Any]) -> str:
    """Share of the samples that is selected in the last epoch, how much of it is right, and of what is right."""
    runs, noises = _grouped(record)
    selecting = [method for method in _present(runs) if any(_has(runs, method, noise) for noise in noises)]
    rows = [
        [method, *(_mean_of(runs.get((method, noise), []), part) for noise in noises for part in _SELECTION)]
        for method in selecting
    ]
    return _markdown(["strategy", *(f"{noise}: {part}" for noise in noises for part in _SELECTION)], rows)


def argument_table(record: dict[str, Any]) -> str:
    """What each strategy was given, and where it comes from."""
    runs, settings = _grouped(record)[0], record["settings"]
    batches = next(iter(record["runs"].values()))["batches"]
    scale = Scale(settings["epochs"], batches, settings["batch_size"])
    rows = [
        [method, _arguments(STRATEGIES[method].arguments(scale)), STRATEGIES[method].source]
        for method in _present(runs)
    ]
    return _markdown(["strategy", "arguments", "published"], rows)


def figure(record: dict[str, Any]) -> Figure:
    """Accuracy of each strategy in its last epoch, and the mean of the best ones; a panel for each noise."""
    runs, noises = _grouped(record)
    methods = _present(runs)
    drawn = Figure(figsize=(3.6 * len(noises) + 2.0, 0.22 * len(methods) + 1.0), layout="constrained")
    panels = drawn.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    for axes, noise in zip(panels, noises, strict=True):
        for row, method in enumerate(methods):
            seen = runs.get((method, noise), [])
            last = _last(seen)
            axes.scatter(last, [row] * len(last), s=8, alpha=0.5, linewidth=0, color="tab:blue")
            if seen:
                axes.scatter([statistics.mean(last)], [row], s=26, marker="|", color="tab:blue")
                axes.scatter([_best(seen)], [row], s=16, facecolor="white", edgecolor="tab:blue")
        if "CE" in methods and runs.get(("CE", noise)):
            axes.axvline(statistics.mean(_last(runs["CE", noise])), color="tab:red", linewidth=0.8)
        axes.set_title(noise, fontsize=10)
        axes.set_xlabel("clean test accuracy, %")
        axes.grid(axis="x", linewidth=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=8)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    drawn.suptitle("last epoch: seeds (dots) and mean (bars); best epoch (rings); last epoch of CE (red)", fontsize=8)
    return drawn


def _grouped(record: dict[str, Any]) -> tuple[Runs, list[str]]:
    """Runs by method and noise, and the noises in the order in which they came."""
    runs: Runs = {}
    for seen in record["runs"].values():
        runs.setdefault((seen["method"], seen["noise"]), []).append(seen)
    return runs, sorted({noise for _, noise in runs})


def _present(runs: Runs) -> list[str]:
    return [method for method in STRATEGIES if any(method == key[0] for key in runs)]


def _has(runs: Runs, method: str, noise: str) -> bool:
    return any(seen["precision"] is not None for seen in runs.get((method, noise), []))


def _last(seen: list[dict[str, Any]]) -> list[float]:
    return [100 * one["accuracy"][-1] for one in seen]


def _mean_last(seen: list[dict[str, Any]]) -> str:
    return f"{statistics.mean(_last(seen)):.2f}" if seen else "-"


def _best(seen: list[dict[str, Any]]) -> float:
    return 100 * statistics.mean(max(one["accuracy"]) for one in seen)


def _accuracies(runs: Runs, method: str, noise: str) -> tuple[str, str, str]:
    seen = runs.get((method, noise), [])
    if not seen:
        return "-", "-", "-"
    last = _last(seen)
    span = f" ({min(last):.2f} to {max(last):.2f})" if len(last) > 1 else ""
    return f"{statistics.mean(last):.2f}{span}", _mean_of(seen, "alone"), f"{_best(seen):.2f}"


def _mean_of(seen: list[dict[str, Any]], name: str) -> str:
    values = [one[name] for one in seen if one[name] is not None]
    return f"{100 * statistics.mean(values):.2f}" if values else "-"


def _seeds(runs: Runs, methods: Sequence[str]) -> str:
    counts = {len(seen) for key, seen in runs.items() if key[0] in methods}
    return " to ".join(map(str, sorted(counts)))


def _arguments(arguments: dict[str, Any]) -> str:
    shown = (f"{name} {'the true rate' if value is None else _number(value)}" for name, value in arguments.items())
    return ", ".join(shown) or "none"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(columns: Sequence[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
