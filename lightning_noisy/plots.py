"""Figures: matplotlib ``Figure`` objects, never pyplot state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

_COLOURS = {"clean": "#1b6ca8", "noisy": "#c8553d", "all": "#555555"}
_LABELS = {"clean": "correctly labelled", "noisy": "mislabelled", "all": "whole training set"}


def confidence_figure(history: Mapping[int, Mapping[str, float]], title: str = "") -> Figure:
    """Confidence in the given label over training: a network that memorises pulls the mislabelled curve up.

    Args:
        history: epoch -> ``{"train/conf/clean": ..., "train/conf/noisy": ...}`` (or ``train/conf/all``), in [0, 1].
        title: Above the axes.
    """
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    epochs = sorted(history)
    for group, colour in _COLOURS.items():
        name = f"train/conf/{group}"
        known = [epoch for epoch in epochs if name in history[epoch]]
        if known:
            axes.plot(known, [history[e][name] for e in known], color=colour, label=_LABELS[group], linewidth=2)
    _frame(axes, title, "epoch", "mean probability of the given label")
    axes.set_ylim(0, 1)
    return figure


def comparison_figure(
    accuracies: Mapping[str, Mapping[int, Sequence[float]]],
    confidences: Mapping[str, Mapping[int, Mapping[str, float]]],
) -> Figure:
    """Test accuracy and confidence in the given labels of several runs side by side.

    Args:
        accuracies: run -> epoch -> test accuracies in [0, 1], one a seed; drawn as mean and range.
        confidences: run -> history as in :func:`confidence_figure`.
    """
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = ["#1b6ca8", "#c8553d", "#3a7d44", "#7b5ea7"]
    for colour, (run, by_epoch) in zip(colours, accuracies.items(), strict=False):
        epochs = sorted(by_epoch)
        means = [sum(by_epoch[e]) / len(by_epoch[e]) for e in epochs]
        left.plot(epochs, means, color=colour, label=run, linewidth=2)
        left.fill_between(
            epochs, [min(by_epoch[e]) for e in epochs], [max(by_epoch[e]) for e in epochs], color=colour, alpha=0.2
        )
    for colour, (run, history) in zip(colours, confidences.items(), strict=False):
        epochs = sorted(history)
        for group, style in (("clean", "-"), ("noisy", "--")):
            values = [history[e][f"train/conf/{group}"] for e in epochs]
            right.plot(epochs, values, style, color=colour, label=f"{run}: {_LABELS[group]}", linewidth=2)
    _frame(left, "clean test accuracy", "epoch", "accuracy")
    _frame(right, "confidence in the given label", "epoch", "mean probability")
    right.set_ylim(0, 1)
    return figure


def _frame(axes, title: str, x: str, y: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
