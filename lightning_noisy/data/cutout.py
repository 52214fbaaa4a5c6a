"""A square that is cut out of each image of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.data.batch_transforms import BatchTransform, Draws, beside
from lightning_noisy.errors import check_argument


class Cutout(BatchTransform):
    """A square of one value at a random place inside each image.

    Args:
        share: Its side as a share of the image's, in (0, 1).
        value: The value.

    Raises:
        NoisyLabelError: ``share`` is outside its range.

    References:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017, whose square may
        stick out.
    """

    def __init__(self, share: float, value: float) -> None:
        check_argument(0 < share < 1, "share", "a float in (0, 1)", share)
        self.share = share
        self.value = value

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Cut a square out of images (B, C, H, W)."""
        draws = self.needed(draws)
        rows, columns = (beside(images, self._band(side, draws)) for side in images.shape[2:])
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], self.value)

    def _band(self, side: int, draws: Draws) -> Tensor:
        """Which of ``side`` positions the square covers, bool (B, side)."""
        length = round(self.share * side)
        start = draws.integers(side - length + 1).unsqueeze(1)
        position = torch.arange(side, device=start.device)
        return (position >= start) & (position < start + length)
