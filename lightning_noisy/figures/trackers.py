"""Figures of the trackers, and of the weights that losses give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from lightning_noisy.figures.class_maps import heat_map
from lightning_noisy.figures.curves import GROUP_COLORS, GROUP_LABELS, RUN_COLORS, curve, frame

_BINS = 40


def curves_figure(
    history: Mapping[int, Mapping[str, float]], panels: Mapping[str, Mapping[str, str]], title: str = ""
) -> Figure:
    """Metrics over epochs, in panels side by side.

    Args:
        history: epoch -> name -> value.
        panels: For each panel what stands beside it, and its curves: name of the metric -> what it is. A name that ends
            in ``clean``, ``noisy`` or ``all`` has the color of that group of samples.
        title: Above the first panel.
    """
    figure = Figure(figsize=(1.0 + 4.0 * len(panels), 3.2), layout="constrained")
    for position, (axes, (label, curves)) in enumerate(zip(_row(figure, len(panels)), panels.items(), strict=True)):
        for (name, what), color in zip(curves.items(), RUN_COLORS, strict=False):
            values = {epoch: history[epoch][name] for epoch in sorted(history) if name in history[epoch]}
            curve(axes, values, GROUP_COLORS.get(name.rpartition("/")[2], color), label=what)
        frame(axes, "" if position else title, label)
        if len(axes.lines) > 1:
            axes.legend(frameon=False, fontsize="small")
    return figure


def of_groups(name: str) -> dict[str, str]:
    """The curves of a metric over the groups of samples, for :func:`curves_figure`."""
    return {f"{name}/{group}": what for group, what in GROUP_LABELS.items()}


def attention_figure(
    attention: NDArray[np.floating],
    clean: NDArray[np.integer],
    given: NDArray[np.integer],
    title: str = "",
    names: Sequence[str] | None = None,
) -> Figure:
    """The attention to samples: its histogram, and its mean for each pair of true class and given label.

    Args:
        attention: In [0, 1], (N,).
        clean: True classes (N,).
        given: Given labels (N,).
        title: Above the histogram.
        names: Names of the classes, where they are known.
    """
    figure = Figure(figsize=(9.0, 3.9), layout="compressed")
    left, right = _row(figure, 2)
    for group, members in (("clean", clean == given), ("noisy", clean != given)):
        options = {"color": GROUP_COLORS[group], "label": GROUP_LABELS[group]}
        left.hist(attention[members], _BINS, (0.0, 1.0), alpha=0.6, **options)
    frame(left, title, "samples")
    left.set_xlabel("attention")
    _from_0_to_1(left)
    left.legend(frameon=False, fontsize="small")
    sums, counts = (_by_pair(clean, given, weights) for weights in (attention, np.ones(len(clean))))
    image = heat_map(right, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), names=names)
    figure.colorbar(image, label="mean attention", pad=0.03)
    return figure


def correction_figure(
    clean: NDArray[np.integer],
    given: NDArray[np.integer],
    corrected: NDArray[np.integer],
    title: str = "",
    names: Sequence[str] | None = None,
) -> Figure:
    """What became of each class: its given labels, and the corrected ones, as shares.

    Args:
        clean: True classes (N,).
        given: Given labels (N,).
        corrected: Corrected labels (N,).
        title: Above both.
        names: Names of the classes, where they are known.
    """
    figure = Figure(figsize=(9.5, 4.4), layout="compressed")
    classes = int(max(clean.max(), given.max(), corrected.max())) + 1
    for axes, labels, what in zip(_row(figure, 2), (given, corrected), ("given label", "corrected label"), strict=True):
        counts = _by_pair(clean, labels, np.ones(len(clean)), classes)
        image = heat_map(axes, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), what, names)
        right = 100 * np.mean(clean == labels)
        axes.set_title(f"{right:.1f} % right", loc="left", fontsize="medium", fontweight="bold")
    figure.suptitle(title)
    figure.colorbar(image, ax=figure.axes, label="share of the class", pad=0.02)
    return figure


def gradient_weight_figure(
    confidence: NDArray[np.floating], weights: Mapping[str, NDArray[np.floating]], title: str = ""
) -> Figure:
    """The weight that losses give a sample, against the probability of its label.

    Args:
        confidence: Probabilities of the label (M,), rising.
        weights: Name of a loss -> weights (M,), as :func:`lightning_noisy.losses.gradient_weight` gives them.
        title: Above the axes.
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    (axes,) = _row(figure, 1)
    for position, (name, values) in enumerate(weights.items()):
        color, style = RUN_COLORS[position % len(RUN_COLORS)], "-" if position < len(RUN_COLORS) else "--"
        axes.plot(confidence, values, style, color=color, label=name, linewidth=2)
    frame(axes, title, "gradient weight")
    axes.set_xlabel("probability of the given label")
    _from_0_to_1(axes)
    axes.set_ylim(0, 4)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _from_0_to_1(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(MultipleLocator(0.2))


def _row(figure: Figure, panels: int) -> NDArray[np.object_]:
    axes: NDArray[np.object_] = figure.subplots(1, panels, squeeze=False)[0]
    return axes


def _by_pair(
    clean: NDArray[np.integer], labels: NDArray[np.integer], weights: NDArray[np.floating], classes: int = 0
) -> NDArray[np.floating]:
    """Sums of weights over the samples of each true class (row) and label (column)."""
    classes = max(classes, int(max(clean.max(initial=0), labels.max(initial=0))) + 1)
    sums = np.bincount(clean * classes + labels, weights, classes * classes).astype(np.float64)
    return sums.reshape(classes, classes)
