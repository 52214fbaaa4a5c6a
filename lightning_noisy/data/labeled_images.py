"""Images with labels, in memory or behind a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Transform = Callable[[Any], Tensor]
"""From a raw image to a tensor (C, H, W)."""


@dataclass(frozen=True)
class LabeledImages:
    """A set of images with clean labels, noisy labels, or both; those of a NumPy array become tensors.

    Args:
        image: ``image(index)`` loads one, as the transforms want it.
        labels: Clean labels, int64 (N,); None where nobody knows them.
        noisy: Noisy labels that the images come with, int64 (N,); None where the data module draws them.
        samples: All images (N, ...) where they are in memory: they are then gathered and transformed by the batch.
        sources: What they are in the user's own data: paths, text or bytes (N,), or rows, int64 (N,), of the array that
            they were taken from; None are their positions.
    """

    image: Callable[[int], Any]
    labels: Tensor | None
    noisy: Tensor | None = None
    samples: Tensor | None = None
    sources: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "noisy"):
            if isinstance(getattr(self, name), np.ndarray):
                object.__setattr__(self, name, torch.from_numpy(getattr(self, name)))

    @classmethod
    def in_memory(
        cls,
        samples: Tensor,
        labels: Tensor | None,
        noisy: Tensor | None = None,
        sources: NDArray[Any] | None = None,
    ) -> LabeledImages:
        """A set whose images are the rows of one tensor (N, ...)."""
        return cls(samples.__getitem__, labels, noisy, samples, sources)

    def sources_of(self, rows: Tensor) -> NDArray[Any]:
        """What the images at positions, int64 (M,), are in the user's own data, (M,)."""
        return rows.numpy() if self.sources is None else self.sources[rows.numpy()]


class Rows:
    """Some of the images, counted from 0.

    Args:
        image: ``image(index)`` loads one of all.
        rows: Positions, int64 (N,).
    """

    def __init__(self, image: Callable[[int], Any], rows: Tensor) -> None:
        self.image = image
        self.rows = rows.tolist()

    def __call__(self, index: int) -> Any:
        """The image at a position among them."""
        return self.image(self.rows[index])
