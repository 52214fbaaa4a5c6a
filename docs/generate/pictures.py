"""Pictures of a method's behaviour, as SVG: small panels that a page puts beside or below one another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from docs.generate.records import Ground, Measured, measured
from lightning_noisy.figures import gradient_weight_figure
from lightning_noisy.figures.curves import RUN_COLORS, curve, frame
from lightning_noisy.losses import MeanAbsoluteError, gradient_weight

SHOWN = 4
"""Curves in a panel, beside that of cross entropy."""
BASELINE = "CE"
CONFIDENCE = torch.linspace(0.02, 0.98, 49)


def panel_rows(ground: Ground, rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """What is drawn together, for each noise: name of the panel -> the first methods, then cross entropy."""
    names = list(dict.fromkeys(row.method for row in rows))[:SHOWN]
    table = measured(ground)
    panels = {}
    for noise in ground.noises:
        drawn = [table[name, noise] for name in (*names, BASELINE) if (name, noise) in table]
        if any(row.method != BASELINE for row in drawn):
            panels[f"{ground.record}-{noise.replace(' ', '-')}"] = drawn
    return panels


def accuracy_figure(rows: Sequence[Measured]) -> Figure:
    """Clean test accuracy over epochs, the mean over seeds; cross entropy dashed."""
    figure = Figure(figsize=(3.6, 2.9))
    axes = figure.add_axes((0.17, 0.17, 0.8, 0.72))
    red, *colors = RUN_COLORS[1], RUN_COLORS[0], *RUN_COLORS[2:]
    for row, color in zip(rows, colors, strict=False):
        values = dict(enumerate(row.curve, start=1))
        curve(axes, values, *((red, "--") if row.method == BASELINE else (color, "-")), row.method)
    frame(axes, rows[0].ground.noises[rows[0].noise], "clean test accuracy, %")
    axes.legend(frameon=False, fontsize="small", loc="best")
    return figure


def weight_picture(loss: nn.Module, name: str) -> bytes:
    """How much the loss learns from a sample, beside cross entropy and MAE, as SVG."""
    weights = {name: gradient_weight(loss, CONFIDENCE).numpy(), **_known_weights()}
    return svg(gradient_weight_figure(CONFIDENCE.numpy(), weights))


@cache
def _known_weights() -> dict[str, NDArray[np.floating]]:
    known = {"cross entropy": nn.CrossEntropyLoss(), "MAE": MeanAbsoluteError()}
    return {name: gradient_weight(loss, CONFIDENCE).numpy() for name, loss in known.items()}


def svg(figure: Figure) -> bytes:
    """The same bytes each time, with text as text."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_noisy", "font.family": "sans-serif"}):
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
