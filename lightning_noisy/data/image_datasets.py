"""Data sets of images that are loaded one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_noisy.data.epoch_index import epoch_of
from lightning_noisy.functional.random import hash_seed


class TrainingDataset(Dataset[Any]):
    """Images with given labels, augmentation and index: ``(image, target, index)``.

    The augmentation of a sample is a function of (seed, epoch, index): torch's CPU generator is set from them for the
    transform alone and put back afterwards, so it does not depend on workers, order or resume.

    Args:
        images: ``images(index)`` loads sample ``index``.
        targets: Given labels, int64 (N,).
        transform: From what ``images`` gives to a tensor.
        seed: Seed of the augmentation.
        sources: What the images are in the user's own data, (N,); None are their positions.
    """

    augments_by_epoch = indexed = True

    def __init__(
        self,
        images: Callable[[int], Any],
        targets: Tensor,
        transform: Callable[[Any], Any],
        seed: int = 0,
        sources: NDArray[Any] | None = None,
    ) -> None:
        self.images = images
        self.targets = targets
        self.transform = transform
        self.seed = seed
        self.sources = sources

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Tensor, int]:
        image = self.images(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash_seed(self.seed, epoch_of(index), index))
            image = self.transform(image)
        return image, self.targets[index], int(index)


class EvaluationDataset(Dataset[Any]):
    """Images with labels: ``(image, target)``, without augmentation.

    Args:
        images: ``images(index)`` loads sample ``index``.
        targets: Labels, int64 (N,).
        transform: From what ``images`` gives to a tensor.
        sources: What the images are in the user's own data, (N,); None are their positions.
    """

    def __init__(
        self,
        images: Callable[[int], Any],
        targets: Tensor,
        transform: Callable[[Any], Any],
        sources: NDArray[Any] | None = None,
    ) -> None:
        self.images = images
        self.targets = targets
        self.transform = transform
        self.sources = sources

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return self.transform(self.images(index)), self.targets[index]
