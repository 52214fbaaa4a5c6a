"""CIFAR of noise: what a dry run has instead of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_noisy.data import CIFAR10DataModule, CIFAR80NODataModule, CIFAR100DataModule
from lightning_noisy.files import written_aside

TRAIN, TEST = 48, 16


@dataclass(frozen=True)
class Images:
    """What a data module uses of torchvision's CIFAR."""

    data: np.ndarray[Any, np.dtype[np.uint8]]
    targets: list[int]


def images(train: bool, num_classes: int) -> Images:
    """Pixels without a meaning, labels of all classes by turns."""
    count = TRAIN if train else TEST
    pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Images(pixels, [7 * row % num_classes for row in range(count)])


def write_labels(path: Path) -> None:
    """A file of labels for them; one of several arrays has them as ``worse``, as that of CIFAR-10N."""
    labels = np.arange(TRAIN, dtype=np.uint8) % 7
    with written_aside(path) as file:
        if path.suffix == ".npz":
            np.savez(file, worse=labels)
        else:
            np.save(file, labels)


class MadeUpCIFAR10(CIFAR10DataModule):
    """Ten classes."""

    @override
    def open(self, train: bool, download: bool = False) -> Images:
        return images(train, 10)


class MadeUpCIFAR100(CIFAR100DataModule):
    """A hundred."""

    @override
    def open(self, train: bool, download: bool = False) -> Images:
        return images(train, 100)


class MadeUpCIFAR80NO(CIFAR80NODataModule):
    """A hundred, of which twenty are outsiders."""

    @override
    def open(self, train: bool, download: bool = False) -> Images:
        return images(train, 100)
