"""Heat maps whose rows or columns are classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_noisy.errors import printable

NUMBERED = 20  # classes up to which a heat map has room for numbers and names
_LONGEST_NAME = 16  # characters


def mask_figure(kept: NDArray[np.floating], title: str = "", names: Sequence[str] | None = None) -> Figure:
    """How often each connection of a classifier was kept, as a heat map.

    Args:
        kept: Shares of steps (K, D), in [0, 1]: a row for each class, a column for each input feature.
        title: Above the axes.
        names: Names of the K classes; they stand at the axis as far as there is room.
    """
    classes, features = kept.shape
    width, height = min(16.0, max(6.0, features / 64)), min(8.0, 1.2 + 0.5 * classes**0.5)
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    # Sharp while every edge has a pixel of its own.
    interpolation = "nearest" if classes <= 1000 and features <= 2048 else "antialiased"
    image = axes.imshow(kept, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation=interpolation)
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_xlabel("input feature")
    axes.set_ylabel("class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if names is not None and classes <= NUMBERED:
        name_classes(axes.yaxis, names, classes)
    figure.colorbar(image, label="share of steps kept", pad=0.02)
    return figure


def transition_figure(counts: NDArray[np.integer], names: Sequence[str] | None = None) -> Figure:
    """What became of each class: the realized transition matrix as a heat map, with numbers up to 20 classes.

    Colors follow the square root of the shares, so that small ones are seen.

    Args:
        counts: How often each clean class (row) got each label (column), (C, K).
        names: Names of the K classes; they stand at the axes as far as there is room.
    """
    classes, labels = counts.shape
    side = max(3.5, 0.42 * classes) if max(classes, labels) <= NUMBERED else 6.0
    figure = Figure(figsize=(side + 1.2, side + 0.5), layout="compressed")
    axes = figure.subplots()
    image = heat_map(axes, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), names=names)
    wrong = 1 - np.trace(counts) / max(1, counts.sum())
    axes.set_title(f"Label noise: {100 * wrong:.2f} % wrong", loc="left", fontsize="medium", fontweight="bold")
    figure.colorbar(image, label="share of the class", pad=0.03, ticks=[0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
    return figure


def heat_map(
    axes: Axes, values: NDArray[np.floating], columns: str = "given label", names: Sequence[str] | None = None
) -> AxesImage:
    """Values in [0, 1] of each true class (row) and label (column), with numbers up to 20 classes; NaN stays white.

    Colors follow the square root of the values.

    Args:
        axes: Where to draw.
        values: (C, K).
        columns: What the columns are.
        names: Names of the classes; they stand at the axes as far as there is room.
    """
    classes, labels = values.shape
    interpolation = "nearest" if classes <= 300 else "antialiased"  # sharp while a class has pixels of its own
    image = axes.imshow(values, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation=interpolation)
    for (row, column), value in np.ndenumerate(values) if max(classes, labels) <= NUMBERED else ():
        if value >= 0.005:
            text, color = f"{value:.2f}".removeprefix("0"), "white" if value > 0.3 else "black"
            axes.text(column, row, text, ha="center", va="center", size=7, color=color)
    axes.set_xlabel(columns)
    axes.set_ylabel("true class")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=NUMBERED, integer=True, steps=[1, 2, 5, 10]))
    if names is not None and max(classes, labels) <= NUMBERED:
        name_classes(axes.yaxis, names, classes)
        name_classes(axes.xaxis, names, labels, rotation=90)
    return image


def name_classes(axis: Axis, names: Sequence[str], count: int, rotation: float = 0) -> None:
    """Write the names of classes at an axis that counts them; what is long is cut, further classes have numbers.

    Args:
        axis: The axis.
        names: Of classes 0, 1, ...
        count: Number of classes at the axis.
        rotation: Of the text, in degrees.
    """
    all_names = [*map(printable, names), *map(str, range(len(names), count))][:count]
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in all_names]
    axis.set_ticks(range(count), shown, rotation=rotation, size="small", parse_math=False)
