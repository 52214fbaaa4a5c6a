"""Figures: matplotlib ``Figure`` objects, never pyplot state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

GROUP_COLORS = {"clean": "#1b6ca8", "noisy": "#c8553d", "all": "#555555"}
GROUP_LABELS = {"clean": "correctly labeled", "noisy": "mislabeled", "all": "whole training set"}
_STYLES: dict[str, Literal["-", "--", ":"]] = {"clean": "-", "noisy": "--", "all": ":"}
_OUTCOME_COLORS = {"correct": "#1b6ca8", "memorized": "#c8553d", "other": "#c9c9c9", "wrong": "#c9c9c9"}
_OUTCOME_LABELS = {"correct": "the true class", "memorized": "the wrong label it was given", "other": "another class"}
_COMPONENTS = (("taken for correct", "-"), ("taken for wrong", "--"))
RUN_COLORS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b5ea7", "#c99700", "#3aa6a0", "#b04a84", "#555555")


def confidence_figure(history: Mapping[int, Mapping[str, float]], title: str = "") -> Figure:
    """Confidence in the given label over training: a network that memorizes pulls the mislabeled curve up.

    Args:
        history: epoch -> ``{"train/conf/clean": ..., "train/conf/noisy": ...}`` (or ``train/conf/all``), in [0, 1].
        title: Above the axes.
    """
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for group, color in GROUP_COLORS.items():
        curve(axes, _values(history, group), color, label=GROUP_LABELS[group])
    frame(axes, title, "mean probability of the given label")
    axes.set_ylim(0, 1)
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    return figure


def memorization_figure(history: Mapping[int, Mapping[str, float]], title: str = "") -> Figure:
    """What the network predicts for mislabeled and for correctly labeled samples, as shares of each group.

    A network that memorizes turns what it first predicted correctly into the wrong labels it was given.

    Args:
        history: epoch -> name -> share in [0, 1]; the names are ``train/memorization/noisy/correct``, ``memorized`` and
            ``other``, and ``train/memorization/clean/correct`` and ``wrong``.
        title: Above both axes.
    """
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    noisy, clean = figure.subplots(1, 2, sharey=True)
    _stack(noisy, history, "noisy", ("correct", "other", "memorized"))
    _stack(clean, history, "clean", ("correct", "wrong"))
    frame(noisy, "Mislabeled samples", "share of samples")
    frame(clean, "Correctly labeled samples", "")
    noisy.set_ylim(0, 1)
    figure.suptitle(title)
    patches = [Patch(color=_OUTCOME_COLORS[name], label=label) for name, label in _OUTCOME_LABELS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, title="The network predicts")
    return figure


def mixture_figure(
    values: NDArray[np.floating],
    densities: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    wrong: NDArray[np.bool_] | None = None,
    title: str = "",
) -> Figure:
    """What a mixture of two components was fitted to, as a histogram with the components on it.

    Args:
        values: Losses or scores of the samples (N,), N >= 1.
        densities: Gives the weighted densities of the components (2, P) at points (P,), that of clean samples first.
        wrong: Which samples are mislabeled, bool (N,), where it is known: they stand on the others.
        title: Above the axes.
    """
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    groups = {"all": values} if wrong is None else {"clean": values[~wrong], "noisy": values[wrong]}
    colors, labels = [GROUP_COLORS[group] for group in groups], [GROUP_LABELS[group] for group in groups]
    axes.hist(list(groups.values()), 50, density=True, stacked=True, color=colors, label=labels, alpha=0.5)
    axes.set_ylim(axes.get_ylim())  # a narrow component is higher than any bar
    points = np.linspace(*axes.get_xlim(), 1000)[1:-1]
    for (label, style), density in zip(_COMPONENTS, densities(points), strict=True):
        axes.plot(points, density, style, color="black", linewidth=1.5, label=label)
    frame(axes, title, "density")
    axes.set_xlabel("")
    axes.xaxis.set_major_locator(MaxNLocator())
    axes.legend(frameon=False, fontsize="small")
    return figure


def comparison_figure(
    accuracies: Mapping[str, Mapping[int, Sequence[float]]],
    confidences: Mapping[str, Mapping[int, Mapping[str, float]]],
) -> Figure:
    """Test accuracy and confidence in the given labels of several runs side by side.

    A run has one color in both; the legend below holds for both.

    Args:
        accuracies: run -> epoch -> test accuracies in [0, 1], one a seed; drawn as mean and range.
        confidences: run -> history as in :func:`confidence_figure`.
    """
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = _run_colors([*accuracies, *confidences])
    for run, by_epoch in accuracies.items():
        epochs = sorted(by_epoch)
        curve(left, {e: sum(by_epoch[e]) / len(by_epoch[e]) for e in epochs}, colors[run])
        lowest, highest = [min(by_epoch[e]) for e in epochs], [max(by_epoch[e]) for e in epochs]
        left.fill_between(epochs, lowest, highest, color=colors[run], alpha=0.2, linewidth=0)
    for run, history in confidences.items():
        for group, style in _STYLES.items():
            curve(right, _values(history, group), colors[run], style)
    frame(left, "Clean test accuracy", "accuracy")
    frame(right, "Confidence in the given label", "mean probability")
    right.set_ylim(0, 1)
    groups = [group for group in _STYLES if any(_values(history, group) for history in confidences.values())]
    _legend_below(figure, colors, groups)
    return figure


def _run_colors(runs: Iterable[str]) -> dict[str, str]:
    return {run: RUN_COLORS[i % len(RUN_COLORS)] for i, run in enumerate(dict.fromkeys(runs))}


def _values(history: Mapping[int, Mapping[str, float]], group: str) -> dict[int, float]:
    name = f"train/conf/{group}"
    return {epoch: history[epoch][name] for epoch in sorted(history) if name in history[epoch]}


def _stack(axes: Axes, history: Mapping[int, Mapping[str, float]], group: str, outcomes: Sequence[str]) -> None:
    """Shares of a group on top of one another; the outer epochs reach half an epoch further, so that one is visible."""
    names = [f"train/memorization/{group}/{outcome}" for outcome in outcomes]
    epochs = [epoch for epoch in sorted(history) if names[0] in history[epoch]]
    if epochs:
        heights = [[history[epoch][name] for epoch in (epochs[0], *epochs, epochs[-1])] for name in names]
        colors = [_OUTCOME_COLORS[outcome] for outcome in outcomes]
        axes.stackplot([epochs[0] - 0.5, *epochs, epochs[-1] + 0.5], heights, colors=colors, linewidth=0)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)


def curve(axes: Axes, values: Mapping[int, float], color: str, style: str = "-", label: str | None = None) -> None:
    """A value for each epoch."""
    if values:
        marker = "o" if len(values) == 1 else None  # a line through one point is invisible
        axes.plot(list(values), list(values.values()), style, color=color, label=label, linewidth=2, marker=marker)


def _legend_below(figure: Figure, colors: Mapping[str, str], groups: Sequence[str]) -> None:
    """Below the axes, where it covers no curve: colors for runs, line styles for groups of samples."""
    handles = [Line2D([], [], color=color, linewidth=2, label=run) for run, color in colors.items()]
    handles += [Line2D([], [], linestyle=_STYLES[g], color="black", linewidth=2, label=GROUP_LABELS[g]) for g in groups]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, handlelength=2.5)


def frame(axes: Axes, title: str, y: str) -> None:
    """Title and labels of axes over epochs."""
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
