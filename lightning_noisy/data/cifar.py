"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchvision.datasets import CIFAR10, CIFAR100
from typing_extensions import override

from lightning_noisy.data.batch_transforms import BatchTransform, RandomCrop, RandomFlip
from lightning_noisy.data.torchvision_module import TorchvisionDataModule
from lightning_noisy.data.views import Augmentation, StrongAugment, View, batch_view_transform, check_views


class _CIFARDataModule(TorchvisionDataModule):
    """50,000 training and 10,000 test images, 32 x 32, augmented as in the papers."""

    size = (32, 32)

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        views: Sequence[View] = ("weak",),
        strong: Augmentation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, download, **options)
        check_views(views)
        self.views = tuple(views)
        self.strong = StrongAugment("cifar10") if strong is None else strong

    @override
    def training_transform(self) -> BatchTransform:
        geometry = [RandomCrop(32, padding=4), RandomFlip()]
        return batch_view_transform(self.views, geometry, self.strong, self.evaluation_transform())


class CIFAR10DataModule(_CIFARDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, ten classes.

    Augmentation is that of the papers: random crop of 32 after padding by 4, horizontal flip, normalization.
    Arguments and errors are those of :class:`~lightning_noisy.data.TorchvisionDataModule`, ``views`` and ``strong``;
    ``root`` holds ``cifar-10-batches-py``. ``FileNoise`` brings the human labels CIFAR-10N.

    Args:
        views: What a training image becomes: ``"weak"`` (crop and flip), ``"strong"`` (``strong`` after them), or a
            transform from bytes, uint8 (C, H, W), to a tensor, which draws from torch's generator alone. One view is a
            tensor; several are a list in this order.
        strong: From bytes to bytes; None is ``StrongAugment("cifar10")``, AutoAugment's policy for CIFAR-10.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    num_classes = 10
    title = "CIFAR-10"
    folder = "cifar-10-batches-py"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)

    @override
    def open(self, train: bool, download: bool = False) -> Any:
        return CIFAR10(self.root, train=train, download=download)


class CIFAR100DataModule(_CIFARDataModule):
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32, a hundred (fine) classes.

    Augmentation, arguments and errors are those of :class:`CIFAR10DataModule`; ``root`` holds ``cifar-100-python``.
    ``FileNoise`` brings the human labels CIFAR-100N.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    num_classes = 100
    title = "CIFAR-100"
    folder = "cifar-100-python"
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)

    @override
    def open(self, train: bool, download: bool = False) -> Any:
        return CIFAR100(self.root, train=train, download=download)
