"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torchvision.datasets import CIFAR10, CIFAR100
from typing_extensions import override

from lightning_noisy.data.batch_transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BatchTransform,
    Normalize,
    PaddingMode,
    RandomCrop,
    RandomFlip,
    check_padding_mode,
)
from lightning_noisy.data.torchvision_module import TorchvisionDataModule
from lightning_noisy.data.views import Augmentation, StrongAugment, View, batch_view_transform, check_views
from lightning_noisy.errors import check_argument

_NOTHING = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class _CIFARDataModule(TorchvisionDataModule):
    """50,000 training and 10,000 test images, 32 x 32, augmented as in the papers."""

    size = (32, 32)

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        views: Sequence[View] = ("weak",),
        strong: Augmentation | None = None,
        normalization: Literal["data_set", "imagenet", "none"] = "data_set",
        padding_mode: PaddingMode = "constant",
        **options: Any,
    ) -> None:
        super().__init__(root, download, **options)
        check_views(views)
        constants = {"data_set": (self.mean, self.std), "imagenet": (IMAGENET_MEAN, IMAGENET_STD), "none": _NOTHING}
        known = normalization in constants
        check_argument(known, "normalization", "'data_set', 'imagenet' or 'none'", normalization)
        check_padding_mode(padding_mode)
        self.normalization = normalization
        self._constants = constants[normalization]
        self.padding_mode = padding_mode
        self.views = tuple(views)
        self.strong = StrongAugment("cifar10") if strong is None else strong

    @override
    def evaluation_transform(self) -> BatchTransform:
        return Normalize(*self._constants)

    @override
    def training_transform(self) -> BatchTransform:
        geometry = [RandomCrop(32, padding=4, padding_mode=self.padding_mode), RandomFlip()]
        return batch_view_transform(self.views, geometry, self.strong, self.evaluation_transform())


class CIFAR10DataModule(_CIFARDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, ten classes.

    Augmentation is that of the papers: random crop of 32 after padding by 4, horizontal flip, normalization.
    Arguments and errors are those of :class:`~lightning_noisy.data.TorchvisionDataModule` and those below; ``root``
    holds ``cifar-10-batches-py``. ``FileNoise`` brings the human labels CIFAR-10N.

    Args:
        views: What a training image becomes: ``"weak"`` (crop and flip), ``"strong"`` (``strong`` after them), or a
            transform from bytes, uint8 (C, H, W), to a tensor, which draws from torch's generator alone. One view is a
            tensor; several are a list in this order.
        strong: From bytes to bytes; None is ``StrongAugment("cifar10")``, AutoAugment's policy for CIFAR-10.
        normalization: By the mean and standard deviation of the data set, or of ImageNet, as SED and Jo-SRC; ``"none"``
            leaves pixels in [0, 1], as Co-teaching, Co-teaching+, JoCoR and SPRL.
        padding_mode: What an image is padded with: ``"constant"``, black; ``"reflect"``, itself mirrored, as in DISC.

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
