"""What data modules over torchvision's small data sets share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.batch_transforms import BatchTransform, Normalize
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.module import NoisyDataModule
from lightning_noisy.data.origins import known_class_names
from lightning_noisy.errors import NoisyLabelError

_UNREADABLE = (RuntimeError, ValueError, AssertionError)  # how torchvision says that files are missing or damaged


class TorchvisionDataModule(NoisyDataModule):
    """Base of the data modules over a data set of torchvision whose images fit into memory.

    Images become float32 (C, H, W) and are normalized channel by channel; a subclass augments them.

    Args:
        root: Folder that holds or gets the data, as in torchvision.
        download: Whether to download the data if they are not there.
        num_workers: Worker processes of each loader; one process serves some ten thousand images a second.
        **options: Further arguments are those of :class:`~lightning_noisy.data.NoisyDataModule`; as ``noise``,
            ``FileNoise`` brings human labels.

    Raises:
        NoisyLabelError: The data are not in ``root``, or damaged.
    """

    title: ClassVar[str]
    """Name of the data set."""
    folder: ClassVar[str]
    """Where its files lie under ``root``."""
    mean: ClassVar[tuple[float, ...]]
    """Mean of each channel over the training set, pixels in [0, 1]."""
    size: ClassVar[tuple[int, int]]
    """Height and width of its images."""
    std: ClassVar[tuple[float, ...]]
    """Standard deviation of each channel."""

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **options)
        self.root = root
        self.download = download

    @abstractmethod
    def open(self, train: bool, download: bool = False) -> Any:
        """The data set of torchvision: ``data`` uint8 (N, H, W) or (N, H, W, C), and ``targets`` (N,).

        Args:
            train: Whether the training set is wanted, or the test set.
            download: Whether to download both if they are not there.
        """

    @override
    def prepare_data(self) -> None:
        if self.download:
            self.open(train=True, download=True)

    @override
    def training_images(self) -> LabeledImages:
        return self._part(train=True)

    @override
    def test_images(self) -> LabeledImages:
        return self._part(train=False)

    @override
    def training_transform(self) -> BatchTransform:
        return self.evaluation_transform()

    @override
    def evaluation_transform(self) -> BatchTransform:
        return Normalize(self.mean, self.std)

    @override
    def photo_transform(self) -> Callable[[Any], Tensor]:
        """Brought to the size of the data set's images, and to gray where they are."""
        colors = [] if len(self.mean) == 3 else [v2.Grayscale()]
        return cast(
            Callable[[Any], Tensor],
            v2.Compose([v2.Resize(self.size), *colors, v2.PILToTensor(), self.evaluation_transform()]),
        )

    def _part(self, train: bool) -> LabeledImages:
        try:
            opened = self.open(train=train)
        except _UNREADABLE as error:
            raise NoisyLabelError(
                f"{self.title} is not in '{self.root}': expected `{self.root}/{self.folder}` as torchvision writes it; "
                "pass `download=True` (`--data.download true`), or set `root` to the folder that holds it."
            ) from error
        pixels = torch.as_tensor(opened.data)
        images = pixels.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2).contiguous()
        self.class_names = known_class_names(opened)
        if self.class_names is not None:  # of CIFAR80N-O the first
            self.class_names = self.class_names[: self.num_classes]
        return LabeledImages.in_memory(images, torch.as_tensor(opened.targets))
