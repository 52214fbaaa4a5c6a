"""What data modules over images in files share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.balanced import BalancedSampler
from lightning_noisy.data.batch_transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize, PaddingMode
from lightning_noisy.data.geometry import Crop, Geometry
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_problems import ImageProblems
from lightning_noisy.data.labeled_images import LabeledImages, Transform
from lightning_noisy.data.module import NoisyDataModule
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.data.views import Augmentation, StrongAugment, View, check_views, view_transform
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.noise import check_num_classes
from lightning_noisy.trainer_access import run_folder


class ImageListDataModule(NoisyDataModule):
    """Base of the data modules over images in files, which are listed at ``setup`` and decoded when they are asked for.

    A training image is cropped, flipped and normalized; an evaluated one is cropped in its center. Images are RGB, and
    those smaller than a crop are padded with black.

    Whether all listed images are there is checked at ``setup``; one that cannot be decoded ends the run when it is
    reached, with its path and row. With ``on_error="skip"`` each image is decoded once at ``setup``, and those that
    cannot be are left out before samples get their indices: they are reported, and written into the run's folder as
    ``skipped_images.csv``. That costs about as much as the data loading of one epoch; ``num_workers`` threads in each
    process share it. Files of the same content with different labels are kept, reported, and listed in
    ``contradicting_images.csv``.

    Args:
        root: Folder that holds the data.
        image_size: Side of the crop, in pixels.
        resize: Shorter side that images are brought to first; 0 leaves them. None is 8/7 of ``image_size`` (256 for
            224), and leaves training images as they are under ``crop="resized"``, which scales them itself.
        crop: What training images get: ``"resized"``, a random part of 8 to 100 % of the area, scaled; ``"random"``, a
            crop at a random place after ``padding``; ``"center"``, that of evaluation.
        padding: Pixels on each side before a random crop.
        padding_mode: Black ones, ``"constant"``, or the image mirrored, ``"reflect"``, as in DISC.
        flip: Whether training images are flipped horizontally at random.
        mean: Mean of each channel, pixels in [0, 1]; that of ImageNet by default.
        std: Standard deviation of each channel.
        views: What a training image becomes: ``"weak"`` (crop and flip), ``"strong"`` (``strong`` after them), or a
            transform from a PIL image to a tensor, which draws from torch's generator alone. One view is a tensor;
            several are a list in this order.
        strong: From bytes, uint8 (C, H, W), to the same; None is ``StrongAugment()``.
        batches_per_epoch: Batches per process in an epoch, drawn anew each time with all classes alike, see
            :class:`~lightning_noisy.data.BalancedSampler`; None takes the whole training set.
        on_error: ``"raise"`` or ``"skip"``: what happens to images that cannot be read.
        in_memory: Whether images are decoded once, at ``setup``, and kept as squares of ``resize`` pixels in bytes: for
            small images of large files. 10,000 of 73 pixels, those of ``image_size=64``, take 160 MB.
        num_workers: Worker processes of each loader.
        **options: Further arguments are those of :class:`~lightning_noisy.data.NoisyDataModule`.

    Raises:
        NoisyLabelError: An argument outside its range; at ``setup``, data that are not there in the layout expected, a
            set without a readable image, or an epoch that is larger than the training split.
    """

    noisy: ClassVar[bool] = False
    """Whether the data set is published with noisy labels, so that nobody knows the clean ones."""

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        resize: int | None = None,
        crop: Crop = "resized",
        padding: int = 0,
        padding_mode: PaddingMode = "constant",
        flip: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        views: Sequence[View] = ("weak",),
        strong: Augmentation | None = None,
        batches_per_epoch: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        in_memory: bool = False,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(num_workers=num_workers, **options)
        check_argument(len(mean) == len(std) == 3, "mean", "three floats, as many as `std`", mean)
        check_argument(all(value > 0 for value in std), "std", "positive floats", std)
        check_argument(on_error in ("raise", "skip"), "on_error", "'raise' or 'skip'", on_error)
        check_count(batches_per_epoch, "batches_per_epoch", optional=True)
        check_views(views)
        self.root = root
        self.image_size = image_size
        self.resize = resize
        self.crop = crop
        self.padding, self.padding_mode = padding, padding_mode
        self.flip = flip
        side = self._geometry.side
        check_argument(side > 0 or not in_memory, "resize", "a size, for images in memory", resize)
        self.in_memory = in_memory
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.views = tuple(views)
        self.strong = StrongAugment() if strong is None else strong
        self.batches_per_epoch = batches_per_epoch
        self.on_error = on_error
        self._lists: dict[str, ImageList] = {}
        self._pixels: dict[str, Tensor] = {}
        self._problems = ImageProblems()

    @abstractmethod
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        """Class names, and the images of "train" and, where there are such sets, "val", "test" and further test sets.

        Raises:
            NoisyLabelError: The data are not there in the layout expected.
        """

    @property
    def folder(self) -> Path:
        """The folder that holds the data.

        Raises:
            NoisyLabelError: It is not there.
        """
        folder = Path(self.root).expanduser()
        check_argument(folder.is_dir(), "root", "a folder, relative to the working directory", self.root)
        return folder

    @override
    def setup(self, stage: str) -> None:
        if not self._lists:
            self.class_names, lists = self.read_lists()
            self.num_classes = len(self.class_names)
            check_num_classes(self.num_classes)
            self._lists = {split: self._usable(split, images) for split, images in lists.items()}
            if self.in_memory:
                side, threads = self._geometry.side, self.num_workers
                self._pixels = {split: images.squares(side, threads) for split, images in self._lists.items()}
        super().setup(stage)
        if stage == "fit":
            self._write_problems()

    @override
    def training_images(self) -> LabeledImages:
        images = self._lists["train"]
        if images.clean is None and self.noise is not None and not self.noisy:
            return self._labeled("train", images.labels)
        return self._labeled("train", images.clean, images.labels)

    @override
    def test_images(self) -> LabeledImages | None:
        return self.evaluation_images().get("test")

    @override
    def evaluation_images(self) -> dict[str, LabeledImages]:
        return {split: self._evaluated(split, images) for split, images in self._lists.items() if split != "train"}

    @override
    def training_transform(self) -> Callable[[Any], Tensor | list[Tensor]]:
        return view_transform(self.views, self._geometry.training(), self.strong, Normalize(self.mean, self.std))

    @override
    def evaluation_transform(self) -> Transform:
        center = self._geometry.evaluation()
        return cast(Transform, v2.Compose([*center, v2.PILToTensor(), Normalize(self.mean, self.std)]))

    @override
    def photo_transform(self) -> Transform:
        return self.evaluation_transform()

    @override
    def training_sampler(self, processes: int, rank: int) -> EpochSampler:
        if self.batches_per_epoch is None:
            return super().training_sampler(processes, rank)
        size, available = self.batches_per_epoch * self.batch_size * processes, len(self.noisy_targets)
        check_argument(not self.sharded, "sharded", "False beside `batches_per_epoch`", self.sharded)
        wanted = f"at most {available // (self.batch_size * processes)}, as many as {available} samples give"
        check_argument(size <= available, "batches_per_epoch", wanted, self.batches_per_epoch)
        return BalancedSampler(self._train, self.noisy_targets, size, processes, rank, self.seed)

    @property
    def _geometry(self) -> Geometry:
        sizes = self.image_size, self.resize, self.crop
        return Geometry(*sizes, self.padding, self.padding_mode, self.flip)

    def _evaluated(self, split: str, images: ImageList) -> LabeledImages:
        keep = images.clean is None or (split == "val" and self.noisy_val)
        return self._labeled(split, images.labels if keep else images.clean)

    def _labeled(self, split: str, labels: Tensor | None, noisy: Tensor | None = None) -> LabeledImages:
        images, pixels = self._lists[split], self._pixels.get(split)
        image = images.__getitem__ if pixels is None else pixels.__getitem__
        return LabeledImages(image, labels, noisy, pixels, images.sources)

    def _usable(self, split: str, images: ImageList) -> ImageList:
        """The images that can be read, as far as that is asked for."""
        name = type(self).__name__
        if len(images) == 0:
            raise NoisyLabelError(f"The {split} set of {name} is empty.")
        twice = images.contradiction()
        if twice is not None:
            names = self.class_names or ()
            rows = " and ".join(f"{images.name(at)} as {names[int(images.labels[at])]!r}" for at in twice)
            raise NoisyLabelError(f"An image of the {split} set is listed with two labels, {rows}: keep one row.")
        if self.on_error == "raise":
            missing = images.missing()
            if missing:
                raise NoisyLabelError(
                    f"{len(missing)} of {len(images)} {split} images are not there, the first {images.name(missing[0])}"
                    ": check `root`, or leave them out with `on_error='skip'`."
                )
            return images
        bad = images.unreadable(self.num_workers)
        if len(bad) == len(images):
            first, why = next(iter(bad.items()))
            raise NoisyLabelError(
                f"None of the {len(images)} {split} images of {name} can be read, the first {images.name(first)} for: "
                f"{why}; check `root`."
            )
        self._problems.note_skipped(split, images, bad)
        kept = torch.ones(len(images), dtype=torch.bool)
        kept[list(bad)] = False
        images = images.take(kept.nonzero().squeeze(1))
        self._problems.note_copies(split, images, self.class_names or ())
        return images

    def _write_problems(self) -> None:
        folder = None if self.trainer is None else run_folder(self.trainer)
        if folder is not None and self.trainer.is_global_zero:  # type: ignore[union-attr]
            self._problems.write(Path(folder))
