"""Crops, flips and cuts of whole batches."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.data.batch_transforms import BatchTransform, Draws
from lightning_noisy.errors import check_argument, check_count

PaddingMode = Literal["constant", "reflect"]
"""What stands around an image before a crop."""


def check_padding_mode(padding_mode: str) -> None:
    """Refuse an unknown one.

    Raises:
        NoisyLabelError: It is neither ``"constant"`` nor ``"reflect"``.
    """
    check_argument(padding_mode in get_args(PaddingMode), "padding_mode", "'constant' or 'reflect'", padding_mode)


class RandomCrop(BatchTransform):
    """A crop at a random place after padding; all places are equally likely.

    Args:
        size: Height and width of the crop, in pixels.
        padding: Pixels that are added on each side.
        fill: Their value.
        padding_mode: ``"constant"`` for ``fill``; ``"reflect"`` for the image itself, mirrored at its outermost pixels,
            of which there are more than ``padding``.

    Raises:
        NoisyLabelError: An argument outside its range; when called, images that are too small.
    """

    def __init__(self, size: int, padding: int, fill: float = 0.0, padding_mode: PaddingMode = "constant") -> None:
        check_count(size, "size")
        check_count(padding, "padding", least=0)
        check_padding_mode(padding_mode)
        self.size = size
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Crop images (B, C, H, W) to (B, C, size, size)."""
        draws = self.needed(draws)
        padded = self._padded(images)
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        top, left = draws.integers(windows.shape[2]), draws.integers(windows.shape[3])
        places = (torch.arange(len(images), device=images.device), top.to(images.device), left.to(images.device))
        return windows.permute(0, 2, 3, 1, 4, 5)[places]

    def _padded(self, images: Tensor) -> Tensor:
        if self.padding_mode == "constant":
            return F.pad(images, [self.padding] * 4, value=self.fill)
        height, width = images.shape[2:]
        fits = self.padding < min(height, width)
        check_argument(fits, "padding", f"less than the side of images of {height} x {width}", self.padding)
        rows, columns = (_mirrored(side, self.padding).to(images.device) for side in (height, width))
        return images.index_select(2, rows).index_select(3, columns)


def _mirrored(side: int, padding: int) -> Tensor:
    """Which of ``side`` positions stands at each of the padded ones, by reflection at both ends."""
    last = side - 1
    return last - (last - torch.arange(-padding, side + padding).abs()).abs()


class RandomFlip(BatchTransform):
    """Flips half of the images from left to right."""

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Flip images (B, C, H, W)."""
        draws = self.needed(draws)
        flipped = (draws.uniform() < 0.5).to(images.device)
        return torch.where(flipped[:, None, None, None], images.flip(3), images)


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
        rows, columns = (self._band(side, draws).to(images.device) for side in images.shape[2:])
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], self.value)

    def _band(self, side: int, draws: Draws) -> Tensor:
        """Which of ``side`` positions the square covers, bool (B, side)."""
        length = round(self.share * side)
        start = draws.integers(side - length + 1).unsqueeze(1)
        position = torch.arange(side, device=start.device)
        return (position >= start) & (position < start + length)
