"""How photos are brought to one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchvision.transforms import v2

from lightning_noisy.data.batch_transforms import PaddingMode, check_padding_mode
from lightning_noisy.errors import check_argument, check_count

Crop = Literal["resized", "random", "center"]
"""What a training image gets, see :class:`~lightning_noisy.data.ImageListDataModule`."""


@dataclass(frozen=True)
class Geometry:
    """Sizes, crops and flips; arguments as for :class:`~lightning_noisy.data.ImageListDataModule`.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    image_size: int
    resize: int | None
    crop: Crop
    padding: int
    padding_mode: PaddingMode
    flip: bool

    def __post_init__(self) -> None:
        check_count(self.image_size, "image_size")
        check_count(self.resize, "resize", least=0, optional=True)
        check_argument(
            self.crop in ("resized", "random", "center"), "crop", "'resized', 'random' or 'center'", self.crop
        )
        fits = self.padding == 0 or (self.padding > 0 and self.crop == "random")
        check_argument(fits, "padding", "0 without a random crop", self.padding)
        check_padding_mode(self.padding_mode)

    @property
    def side(self) -> int:
        """The shorter side that images are brought to first; 0 leaves them."""
        return round(self.image_size * 8 / 7) if self.resize is None else self.resize

    def training(self) -> list[Any]:
        """Crops and flips of a training image, to bytes."""
        size = self.image_size
        first = [] if self.crop == "resized" and self.resize is None else self._resized()
        crops = {
            "resized": [*first, v2.RandomResizedCrop(size)],
            "random": [*first, v2.RandomCrop(size, self.padding or None, True, padding_mode=self.padding_mode)],
            "center": self.evaluation(),
        }
        return [*crops[self.crop], *([v2.RandomHorizontalFlip()] if self.flip else []), v2.PILToTensor()]

    def evaluation(self) -> list[Any]:
        """The crop in the center of an evaluated image."""
        return [*self._resized(), v2.CenterCrop(self.image_size)]

    def _resized(self) -> list[Any]:
        return [v2.Resize(self.side)] if self.side > 0 else []
