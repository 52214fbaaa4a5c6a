"""Transforms of whole batches: each sample is drawn for on its own, whatever the batch, its order, worker or rank.

They are tensor operations without a loop over samples, on whatever device the images are. What torchvision has for one
image alone is applied image by image by :class:`EachImage`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.random import hash_bits, hash_uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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

    def integers(self, count: int) -> Tensor:
        """Integers in [0, count), int64 (B,)."""
        return (self.uniform() * count).long().clamp(max=count - 1)

    def seeds(self) -> list[int]:
        """A seed in [0, 2**63) for each sample."""
        self._drawn += 1
        return [bits & (2**63 - 1) for bits in hash_bits(*self._keys, self._drawn).tolist()]


class BatchTransform(ABC):
    """From a batch (B, ...) to a batch, or to a list of views, each a batch."""

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
        self._constants = {shift.device: (shift, factor)}

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Normalize bytes."""
        shift, factor = self._constants.get(images.device) or self._bring(images.device)
        return torch.addcmul(shift, images.float(), factor)

    def _bring(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The constants on a device, copied there once: a copy for each batch would make an accelerator wait."""
        shift, factor = self._constants[torch.device("cpu")]
        self._constants[device] = shift.to(device), factor.to(device)
        return self._constants[device]


class EachImage(BatchTransform):
    """A transform of one image, applied to each of a batch, with torch's CPU generator seeded for the sample.

    Args:
        transform: From an image to a tensor; what it draws, it draws from torch's CPU generator.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Any:
        """Transform images one by one; views stay apart."""
        draws = self.needed(draws)
        with torch.random.fork_rng(devices=[]):
            made = [self._seeded(image, seed) for image, seed in zip(images, draws.seeds(), strict=True)]
        if isinstance(made[0], (list, tuple)):
            return [torch.stack(view) for view in zip(*made, strict=True)]
        return torch.stack(made)

    def _seeded(self, image: Tensor, seed: int) -> Any:
        torch.default_generator.manual_seed(seed)
        return self.transform(image)


class Views(BatchTransform):
    """Several views of a batch: a list with what each transform makes of it.

    Args:
        transforms: One for each view.
    """

    def __init__(self, transforms: Sequence[BatchTransform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """The views, in the order of the transforms."""
        draws = self.needed(draws)
        return [transform(images, draws.view(stream)) for stream, transform in enumerate(self.transforms)]


def of_batches(transform: Callable[[Any], Any]) -> BatchTransform:
    """A transform of batches; one of single images is applied to each."""
    return transform if isinstance(transform, BatchTransform) else EachImage(transform)
