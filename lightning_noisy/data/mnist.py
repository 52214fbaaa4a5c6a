"""MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path
from typing import Any

from torchvision.datasets import MNIST, FashionMNIST
from typing_extensions import override

from lightning_noisy.data.batch_transforms import BatchTransform, Compose, RandomCrop, RandomFlip
from lightning_noisy.data.torchvision_module import TorchvisionDataModule
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.files import written_aside


class MNISTDataModule(TorchvisionDataModule):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28, one channel.

    Images are normalized and not augmented, as in the papers that train a small CNN on it. Arguments and errors are
    those of :class:`~lightning_noisy.data.TorchvisionDataModule`; ``root`` holds ``MNIST/raw`` with the four idx files.
    Where they are there as ``.gz`` only, which torchvision does not read, ``prepare_data`` unpacks them beside.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the IEEE, 1998.
    """

    num_classes = 10
    size = (28, 28)
    title = "MNIST"
    folder = "MNIST/raw"
    mean = (0.1307,)
    std = (0.3081,)

    @override
    def open(self, train: bool, download: bool = False) -> Any:
        return MNIST(self.root, train=train, download=download)

    @override
    def prepare_data(self) -> None:
        super().prepare_data()
        for packed in Path(self.root, self.folder).expanduser().glob("*-ubyte.gz"):
            if not packed.with_suffix("").exists():
                _unpack(packed)


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28, one channel, ten classes.

    Arguments and errors are those of :class:`~lightning_noisy.data.TorchvisionDataModule`, and ``augment``; ``root``
    holds ``FashionMNIST/raw``, packed or not, as for :class:`MNISTDataModule`.

    Args:
        augment: Whether training images are cropped at random to 28 after padding by 2, and flipped.

    References:
        Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017.
    """

    title = "Fashion-MNIST"
    folder = "FashionMNIST/raw"
    mean = (0.2860,)
    std = (0.3530,)

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        augment: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(root, download, **options)
        self.augment = augment

    @override
    def open(self, train: bool, download: bool = False) -> Any:
        return FashionMNIST(self.root, train=train, download=download)

    @override
    def training_transform(self) -> BatchTransform:
        plain = self.evaluation_transform()
        return Compose([RandomCrop(28, padding=2), RandomFlip(), plain]) if self.augment else plain


def _unpack(packed: Path) -> None:
    try:
        with gzip.open(packed) as source, written_aside(packed.with_suffix("")) as target:
            shutil.copyfileobj(source, target)
    except (OSError, EOFError, zlib.error) as error:
        raise NoisyLabelError(
            f"Cannot unpack '{packed}' beside itself ({error}): get the file again, or unpack it with `gunzip`."
        ) from error
