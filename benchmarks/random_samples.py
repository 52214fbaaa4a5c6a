"""Samples without a meaning, for what is measured whatever is learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.data import LabeledImages, LabelNoise, NoisyDataModule
from lightning_noisy.data.batch_transforms import BatchTransform, Unchanged

CLASSES = 10
_DISTINCT = 1024


class RandomSamples(NoisyDataModule):
    """Normal numbers of any shape, labels of all classes in turn, no test set.

    Args:
        shape: Of one sample.
        count: How many; 1024 of them differ.
        noise: As of the data module.
        **options: Likewise.
    """

    num_classes = CLASSES

    def __init__(self, shape: tuple[int, ...], count: int, noise: LabelNoise | None = None, **options: Any) -> None:
        super().__init__(noise, seed=0, **options)
        self.shape, self.count = shape, count

    @override
    def training_images(self) -> LabeledImages:
        return LabeledImages.in_memory(*random_samples(self.shape, self.count, self.num_classes))

    @override
    def test_images(self) -> LabeledImages | None:
        return None

    @override
    def training_transform(self) -> BatchTransform:
        return Unchanged()

    @override
    def evaluation_transform(self) -> BatchTransform:
        return Unchanged()


def random_samples(shape: tuple[int, ...], count: int, num_classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Samples (N, ...) and labels (N,)."""
    distinct = torch.randn(_DISTINCT, *shape, generator=torch.Generator().manual_seed(0))
    order = torch.arange(count)
    return distinct[order % _DISTINCT], order % num_classes
