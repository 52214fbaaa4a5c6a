"""CIFAR-10."""

from __future__ import annotations

from typing import cast

import torch
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.module import LabelledImages, NoisyDataModule, Transform
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.errors import NoisyLabelError

_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2023, 0.1994, 0.2010)


class CIFAR10DataModule(NoisyDataModule):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32, ten classes.

    Augmentation is that of the papers: random crop of 32 after padding by 4, horizontal flip, normalisation.

    Args:
        root: Folder that holds or gets ``cifar-10-batches-py``, as in torchvision.
        download: Whether to download the data if they are not there.
        noise: Label noise; None keeps the labels. ``FileNoise`` brings human labels (CIFAR-10N).
        batch_size: Batch size B of one process.
        num_workers: Worker processes of each loader.
        val_fraction: Share of the training set that becomes the validation split, in [0, 1).
        noisy_val: Whether the validation split keeps its noisy labels.
        seed: Seed of noise, split, order and augmentation; None takes the run's (``seed_everything``), else 0.
        pin_memory: As in ``DataLoader``.

    Raises:
        NoisyLabelError: The data are not in ``root``.

    References:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    num_classes = 10

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        noise: LabelNoise | None = None,
        batch_size: int = 128,
        num_workers: int = 2,
        val_fraction: float = 0.0,
        noisy_val: bool = True,
        seed: int | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(noise, batch_size, num_workers, val_fraction, noisy_val, seed, pin_memory)
        self.root = root
        self.download = download

    @override
    def prepare_data(self) -> None:
        if self.download:
            CIFAR10(self.root, train=True, download=True)

    @override
    def training_images(self) -> LabelledImages:
        return self._part(train=True)

    @override
    def test_images(self) -> LabelledImages:
        return self._part(train=False)

    @override
    def training_transform(self) -> Transform:
        return cast(
            Transform,
            v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), self.evaluation_transform()]),
        )

    @override
    def evaluation_transform(self) -> Transform:
        return cast(Transform, v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]))

    def _part(self, train: bool) -> LabelledImages:
        try:
            cifar = CIFAR10(self.root, train=train)
        except RuntimeError as error:
            raise NoisyLabelError(
                f"CIFAR-10 is not in '{self.root}': expected `{self.root}/cifar-10-batches-py` as torchvision writes "
                "it; pass `download=True` (`--data.download true`), or set `root` to the folder that holds it."
            ) from error
        images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2).contiguous()
        return LabelledImages(images.__getitem__, torch.tensor(cifar.targets))
