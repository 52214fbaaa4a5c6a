"""Transforms of whole batches: each sample is drawn for on its own, whatever the batch, its order, worker or rank.

They are tensor operations without a loop over samples, on whatever device the images are. What torchvision has for one
image alone is applied image by image by :class:`~lightning_noisy.data.batch_views.EachImage`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.data.on_device import DeviceCopies
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.random import hash_bits, hash_normals, hash_uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


PaddingMode = Literal["constant", "reflect"]
"""What stands around an image before a crop."""


def check_padding_mode(padding_mode: str) -> None:
    """Refuse an unknown one.

    Raises:
        NoisyLabelError: It is neither ``"constant"`` nor ``"reflect"``.
    """
    check_argument(padding_mode in get_args(PaddingMode), "padding_mode", "'constant' or 'reflect'", padding_mode)


class Draws:
    """Random numbers for the samples of a batch: functions of (seed, epoch, index) and of how many were drawn before.

    Args:
        seed: Seed of the augmentation.
        epoch: Number of the epoch of each sample, int64 (B,).
        index: Positions in the training set, int64 (B,).
        stream: Keeps several views of a sample apart.
    """

    def __init__(self, seed: int, epoch: Tensor, index: Tensor, stream: int = 0) -> None:
        self._keys = seed, epoch, index, stream
        self._drawn = 0

    def view(self, stream: int) -> Draws:
        """Draws of another view of the same samples."""
        seed, epoch, index, _ = self._keys
        return Draws(seed, epoch, index, stream)

    def uniform(self) -> Tensor:
        """Floats in [0, 1), float64 (B,)."""
        self._drawn += 1
        return hash_uniform(*self._keys, self._drawn)

    def uniforms(self, count: int) -> Tensor:
        """As many for each sample, float64 (B, count)."""
        self._drawn += 1
        seed, epoch, index, stream = self._keys
        place = torch.arange(count, device=index.device)
        return hash_uniform(seed, epoch.unsqueeze(1), index.unsqueeze(1), stream, self._drawn, place)

    def normals(self, count: int) -> Tensor:
        """Standard normal numbers for each sample, float32 (B, count)."""
        self._drawn += 1
        return hash_normals(count, *self._keys, self._drawn)

    def integers(self, count: int) -> Tensor:
        """Integers in [0, count), int64 (B,)."""
        return (self.uniform() * count).long().clamp(max=count - 1)

    def seeds(self) -> list[int]:
        """A seed in [0, 2**63) for each sample."""
        self._drawn += 1
        return [bits & (2**63 - 1) for bits in hash_bits(*self._keys, self._drawn).tolist()]


def beside(images: Tensor, drawn: Tensor) -> Tensor:
    """Draws on the device of the images, without waiting for it."""
    return drawn.to(images.device, non_blocking=True)


class BatchTransform(ABC):
    """From a batch (B, ...) to a batch, or to a list of views, each a batch."""

    @property
    def by_batch(self) -> bool:
        """Whether it never goes through a batch image by image."""
        return True

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws | None = None) -> Any:
        """Transform a batch.

        Args:
            images: The batch, e.g. uint8 (B, C, H, W).
            draws: Random numbers for its samples; None for a transform that draws nothing.
        """

    def needed(self, draws: Draws | None) -> Draws:
        """The draws, for a transform that cannot do without.

        Raises:
            NoisyLabelError: There are none: it was called for an image that is loaded alone.
        """
        if draws is None:
            raise NoisyLabelError(
                f"{type(self).__name__} transforms batches of data in memory, but was called for a single image: give "
                "`LabeledImages.in_memory(...)`, or use a transform of torchvision."
            )
        return draws


class Unchanged(BatchTransform):
    """Batches as they are."""

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """The same batch."""
        return images


class Compose(BatchTransform):
    """Transforms behind one another.

    Args:
        transforms: In their order.
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        self.transforms = tuple(transforms)

    @property
    def by_batch(self) -> bool:
        """Whether none goes through a batch image by image."""
        return all(transform.by_batch for transform in self.transforms)

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Apply them all."""
        for transform in self.transforms:
            images = transform(images, draws)
        return images


class Normalize(BatchTransform):
    """From bytes to float32 of mean 0 and standard deviation 1, of a batch (B, C, H, W) or an image (C, H, W).

    Args:
        mean: Mean of each channel, pixels in [0, 1].
        std: Standard deviation of each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        scale, center = torch.tensor(std, dtype=torch.float64), torch.tensor(mean, dtype=torch.float64)
        shift, factor = (-center / scale).float().view(-1, 1, 1), (1 / (255 * scale)).float().view(-1, 1, 1)
        self._constants = DeviceCopies(torch.stack([shift, factor]))

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Normalize bytes."""
        constants, device = self._constants.samples, images.device
        shift, factor = constants if device == constants.device else self._constants.on(device)
        return torch.addcmul(shift, images.float(), factor)


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
        places = (torch.arange(len(images), device=images.device), beside(images, top), beside(images, left))
        return windows.permute(0, 2, 3, 1, 4, 5)[places]

    def _padded(self, images: Tensor) -> Tensor:
        if self.padding_mode == "constant":
            return F.pad(images, [self.padding] * 4, value=self.fill)
        height, width = images.shape[2:]
        fits = self.padding < min(height, width)
        check_argument(fits, "padding", f"less than the side of images of {height} x {width}", self.padding)
        rows, columns = (_mirrored(side, self.padding, images.device) for side in (height, width))
        return images.index_select(2, rows).index_select(3, columns)


def _mirrored(side: int, padding: int, device: torch.device) -> Tensor:
    """Which of ``side`` positions stands at each of the padded ones, by reflection at both ends."""
    last = side - 1
    return last - (last - torch.arange(-padding, side + padding, device=device).abs()).abs()


class RandomFlip(BatchTransform):
    """Flips half of the images from left to right."""

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Flip images (B, C, H, W)."""
        draws = self.needed(draws)
        flipped = beside(images, draws.uniform() < 0.5)
        return torch.where(flipped[:, None, None, None], images.flip(3), images)
