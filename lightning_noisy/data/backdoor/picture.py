"""A picture of poisoned images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lightning_noisy.data.backdoor.poisoning import PixelRange
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.figures import show_figure, write_figure

_SHOWN = 8  # poisoned images in the picture


def show_backdoor(
    trainer: Trainer,
    folder: str | Path,
    original: LabeledImages,
    images: LabeledImages,
    positions: Tensor,
    pixel_range: PixelRange,
) -> None:
    """Draw some poisoned images without and with the trigger, ``figures/backdoor.png`` and ``noise/backdoor``.

    Under several processes, call it on one of them.

    Args:
        trainer: Has the loggers.
        folder: The run's folder.
        original: The training set without the trigger.
        images: The training set.
        positions: Which of them are poisoned, int64 (M,).
        pixel_range: Black and white.
    """
    shown = positions[:_SHOWN].tolist()
    black, white = pixel_range or (0.0, 255.0)
    pairs = [[(_pixels(part.image(i)) - black) / (white - black) for part in (original, images)] for i in shown]
    figure = image_pairs_figure(pairs, ("as it came", "poisoned"))
    write_figure(folder, "backdoor", figure)
    show_figure(trainer, "noise/backdoor", figure)


def _pixels(image: Any) -> NDArray[np.float64]:
    """A tensor (C, H, W) or PIL image as (H, W, C)."""
    pixels = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.array(image)
    return pixels.reshape(*pixels.shape[:2], -1).astype(np.float64)


def image_pairs_figure(pairs: Sequence[Sequence[NDArray[np.floating]]], names: tuple[str, str]) -> Figure:
    """Images in two rows, each above what became of it.

    Args:
        pairs: Before and after, each (H, W, C) with one or three channels, values in [0, 1]; at least one pair.
        names: What the rows are.
    """
    figure = Figure(figsize=(1.2 * len(pairs) + 0.6, 2.8), layout="constrained")
    rows = figure.subplots(2, len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        for axes, image in zip(rows[:, column], pair, strict=True):
            axes.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, name in zip(rows[:, 0], names, strict=True):
        axes.set_ylabel(name)
    return figure
