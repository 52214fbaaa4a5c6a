"""Transforms of whole batches that work image by image, or make several views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.data.batch_transforms import BatchTransform, Draws


class EachImage(BatchTransform):
    """A transform of one image, applied to each of a batch, with torch's CPU generator seeded for the sample.

    Args:
        transform: From an image to a tensor; what it draws, it draws from torch's CPU generator.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    @property
    def by_batch(self) -> bool:
        """It does go through a batch image by image."""
        return False

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

    @property
    def by_batch(self) -> bool:
        """Whether none goes through a batch image by image."""
        return all(transform.by_batch for transform in self.transforms)

    def __call__(self, images: Tensor, draws: Draws | None = None) -> list[Tensor]:
        """The views, in the order of the transforms."""
        draws = self.needed(draws)
        return [transform(images, draws.view(stream)) for stream, transform in enumerate(self.transforms)]


def of_batches(transform: Callable[[Any], Any]) -> BatchTransform:
    """A transform of batches; one of single images is applied to each."""
    return transform if isinstance(transform, BatchTransform) else EachImage(transform)
