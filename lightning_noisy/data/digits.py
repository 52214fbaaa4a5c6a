"""Handwritten digits that come with scikit-learn: no download."""

from __future__ import annotations

from typing import cast

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.module import LabelledImages, NoisyDataModule, Transform
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.functional.random import hash_uniform

_TEST_SAMPLES = 360
_SPLIT_KEY = 0x646967697473  # the test set is the same for every seed
_MEAN, _STD = 4.8842 / 16, 6.0168 / 16  # of all pixels, which run from 0 to 16


class DigitsDataModule(NoisyDataModule):
    """1,797 scans of handwritten digits, 8 x 8 pixels, from scikit-learn: 1,437 for training, 360 for test.

    Images are (1, 8, 8), normalised. The test set does not depend on the seed. Augmentation is a random shift by one
    pixel.

    Args:
        noise: Label noise; None keeps the labels.
        batch_size: Batch size B of one process.
        num_workers: Worker processes of each loader.
        val_fraction: Share of the training set that becomes the validation split, in [0, 1).
        noisy_val: Whether the validation split keeps its noisy labels.
        augment: Whether training images are shifted.
        seed: Seed of noise, split, order and augmentation; None takes the run's (``seed_everything``), else 0.

    References:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    num_classes = 10

    def __init__(
        self,
        noise: LabelNoise | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        val_fraction: float = 0.0,
        noisy_val: bool = True,
        augment: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(noise, batch_size, num_workers, val_fraction, noisy_val, seed)
        self.augment = augment
        self._images: Tensor

    @override
    def training_images(self) -> LabelledImages:
        return self._part(slice(_TEST_SAMPLES, None))

    @override
    def test_images(self) -> LabelledImages:
        return self._part(slice(None, _TEST_SAMPLES))

    @override
    def training_transform(self) -> Transform:
        return cast(Transform, v2.RandomCrop(8, padding=1, fill=-_MEAN / _STD) if self.augment else v2.Identity())

    @override
    def evaluation_transform(self) -> Transform:
        return cast(Transform, v2.Identity())

    def _part(self, rows: slice) -> LabelledImages:
        digits = load_digits()
        order = hash_uniform(_SPLIT_KEY, torch.arange(len(digits.target))).argsort()[rows]
        images = (torch.from_numpy(digits.images).float().unsqueeze(1) / 16 - _MEAN) / _STD
        return LabelledImages(images[order].__getitem__, torch.from_numpy(digits.target).long()[order])
