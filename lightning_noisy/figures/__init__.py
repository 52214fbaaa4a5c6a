"""Figures, as matplotlib ``Figure`` objects and never pyplot state, and where they go."""

from lightning_noisy.figures.class_maps import mask_figure, transition_figure
from lightning_noisy.figures.curves import (
    comparison_figure,
    confidence_figure,
    memorization_figure,
    mixture_figure,
)
from lightning_noisy.figures.trackers import (
    attention_figure,
    correction_figure,
    curves_figure,
    gradient_weight_figure,
    of_groups,
)
from lightning_noisy.figures.writer import FigureWriter, show_figure, write_figure

__all__ = [
    "FigureWriter",
    "attention_figure",
    "comparison_figure",
    "confidence_figure",
    "correction_figure",
    "curves_figure",
    "gradient_weight_figure",
    "mask_figure",
    "memorization_figure",
    "mixture_figure",
    "of_groups",
    "show_figure",
    "transition_figure",
    "write_figure",
]
