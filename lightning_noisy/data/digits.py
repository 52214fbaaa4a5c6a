"""Handwritten digits that come with scikit-learn: no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sklearn.datasets import load_digits
from typing_extensions import override

from lightning_noisy.data.batch_transforms import BatchTransform, Compose, RandomCrop, Unchanged
from lightning_noisy.data.cutout import Cutout
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.module import NoisyDataModule
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.data.views import View, check_views, named_views
from lightning_noisy.functional.random import hash_uniform

_TEST_SAMPLES = 360
_SPLIT_KEY = 0x646967697473  # the test set is the same for every seed
_CUTOUT = 3 / 8  # three pixels
_MEAN, _STD = 4.8842 / 16, 6.0168 / 16  # of all pixels, which run from 0 to 16


class DigitsDataModule(NoisyDataModule):
    """1,797 scans of handwritten digits, 8 x 8 pixels, from scikit-learn: 1,437 for training, 360 for test.

    Images are (1, 8, 8), normalized. The test set does not depend on the seed. A weak view is shifted at random by up
    to one pixel; in a strong one an empty square of 3 x 3 pixels covers a part as well.

    Args:
        noise: Label noise; None keeps the labels.
        batch_size: Batch size B of one process.
        augment: Whether training images are shifted.
        views: What a training image becomes: a tensor for one view, a list for several, e.g. ``["weak", "strong"]``.
        **options: Further arguments are those of :class:`~lightning_noisy.data.NoisyDataModule`.

    References:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    num_classes = 10
    class_names = tuple("0123456789")
    pixel_range = (-_MEAN / _STD, (1 - _MEAN) / _STD)

    def __init__(
        self,
        noise: LabelNoise | None = None,
        batch_size: int = 64,
        augment: bool = True,
        views: Sequence[View] = ("weak",),
        **options: Any,
    ) -> None:
        super().__init__(noise, batch_size, **options)
        check_views(views)
        self.augment = augment
        self.views = tuple(views)

    @override
    def training_images(self) -> LabeledImages:
        return self._part(slice(_TEST_SAMPLES, None))

    @override
    def test_images(self) -> LabeledImages:
        return self._part(slice(None, _TEST_SAMPLES))

    @override
    def training_transform(self) -> BatchTransform:
        empty, _ = self.pixel_range
        weak = RandomCrop(8, padding=1, fill=empty) if self.augment else Unchanged()
        return named_views(self.views, weak, Compose([weak, Cutout(_CUTOUT, empty)]))

    @override
    def evaluation_transform(self) -> BatchTransform:
        return Unchanged()

    def _part(self, rows: slice) -> LabeledImages:
        digits = load_digits()
        order = hash_uniform(_SPLIT_KEY, torch.arange(len(digits.target))).argsort()[rows]
        images = (torch.from_numpy(digits.images).float().unsqueeze(1) / 16 - _MEAN) / _STD
        return LabeledImages.in_memory(
            images[order], torch.from_numpy(digits.target).long()[order], sources=order.numpy()
        )
