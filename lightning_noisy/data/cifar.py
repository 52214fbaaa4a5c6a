"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from typing import Any, cast

from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.module import Transform
from lightning_noisy.data.torchvision_module import TorchvisionDataModule


class _CIFARDataModule(TorchvisionDataModule):
    """50,000 training and 10,000 test images, 32 x 32, augmented as in the papers."""

    @override
    def training_transform(self) -> Transform:
        return cast(
            Transform,
            v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), self.evaluation_transform()]),
        )


class CIFAR10DataModule(_CIFARDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, ten classes.

    Augmentation is that of the papers: random crop of 32 after padding by 4, horizontal flip, normalisation.
    Arguments and errors are those of :class:`~lightning_noisy.data.TorchvisionDataModule`; ``root`` holds
    ``cifar-10-batches-py``. ``FileNoise`` brings the human labels CIFAR-10N.

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

    Augmentation is that of :class:`CIFAR10DataModule`. Arguments and errors are those of
    :class:`~lightning_noisy.data.TorchvisionDataModule`; ``root`` holds ``cifar-100-python``. ``FileNoise`` brings the
    human labels CIFAR-100N.

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
