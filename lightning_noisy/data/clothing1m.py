"""Clothing1M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_noisy.data.image_files import images_in_folders, read_pairs
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.errors import NoisyLabelError, check_argument

CLOTHING1M_MEAN = (0.6959, 0.6537, 0.6371)
CLOTHING1M_STD = (0.3113, 0.3192, 0.3214)

_LIST = "noisy_train_key_list.txt"
_CLOTHES = (
    "T-Shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Downcoat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)


class Clothing1MDataModule(ImageListDataModule):
    """Clothing1M: a million images of 14 kinds of clothes from shops, about 38 % of the labels wrong.

    The training set is the million of ``noisy_train_key_list.txt`` with the labels of ``noisy_label_kv.txt``. The
    clean lists are for validation (14,313 images) and test (10,526), with the labels of ``clean_label_kv.txt``;
    ``clean_train_key_list.txt`` (47,570) is trained on when ``train_on="clean"`` asks for it, and then alone.

    ``root`` holds the key lists and label files, itself or in its folder ``label`` or ``annotations``, and the images
    under the keys ``images/...``, or under the keys without ``images/`` where there is no such folder. It may hold
    folders of classes 0 to 13 instead: ``noisy_train/<label>/...``, ``clean_val``, ``clean_test`` and ``clean_train``.
    Classes are named as in public loaders of the data.

    An epoch has ``batches_per_epoch`` batches, drawn anew with all classes alike: 1000 of 32 in DivideMix and DISC,
    3000 of 64 in ELR+, 2000 of 64 in SELC and NAL. Images are resized to 256 and cropped to 224; SURE takes
    ``crop="resized"``. Normalization is that of the data set in DivideMix, ELR, DISC, NAL and UNICON, that of ImageNet
    in the others.

    Args:
        root: Folder that holds the data.
        train_on: ``"noisy"`` or ``"clean"``: the training set.
        train_folder: The folder of noisy training images where they lie in folders of classes.
        batches_per_epoch: Batches per process in an epoch; None takes the whole training set.
        crop: As for :class:`~lightning_noisy.data.ImageListDataModule`.
        mean: Mean of each channel, pixels in [0, 1].
        std: Standard deviation of each channel.
        **options: Further arguments are those of :class:`~lightning_noisy.data.ImageListDataModule`, without ``noise``.

    Raises:
        NoisyLabelError: As there; at ``setup`` also a key without a label, or a label that is no class.

    References:
        Xiao et al., Learning from Massive Noisy Labeled Data for Image Classification, CVPR 2015.
    """

    noisy: ClassVar[bool] = True

    def __init__(
        self,
        root: str,
        train_on: Literal["noisy", "clean"] = "noisy",
        train_folder: str = "noisy_train",
        batches_per_epoch: int | None = 1000,
        crop: Literal["resized", "random", "center"] = "random",
        mean: Sequence[float] = CLOTHING1M_MEAN,
        std: Sequence[float] = CLOTHING1M_STD,
        **options: Any,
    ) -> None:
        check_argument(train_on in ("noisy", "clean"), "train_on", "'noisy' or 'clean'", train_on)
        super().__init__(root, crop=crop, mean=mean, std=std, batches_per_epoch=batches_per_epoch, **options)
        self.train_on = train_on
        self.train_folder = train_folder

    @override
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        root = self.folder
        places = [place for place in (root, root / "label", root / "annotations") if (place / _LIST).is_file()]
        sets = {"train": f"{self.train_on}_train", "val": "clean_val", "test": "clean_test"}
        if places:
            lists = {split: self._listed(places[0], part) for split, part in sets.items()}
        else:
            lists = self._in_folders(sets if self.train_on == "clean" else {**sets, "train": self.train_folder})
        if self.train_on == "clean":
            lists["train"] = replace(lists["train"], clean=lists["train"].labels)
        return list(_CLOTHES), lists

    def _in_folders(self, sets: dict[str, str]) -> dict[str, ImageList]:
        """The images of folders of classes."""
        root = self.folder
        wanted = f"a folder with `{_LIST}`, `label/{_LIST}` or `annotations/{_LIST}`, or with class folders in "
        wanted += ", ".join(f"`{folder}`" for folder in sets.values())
        check_argument(all((root / folder).is_dir() for folder in sets.values()), "root", wanted, self.root)
        numbers = [str(label) for label in range(len(_CLOTHES))]
        return {split: images_in_folders(root, folder, numbers) for split, folder in sets.items()}

    def _listed(self, lists: Path, part: str) -> ImageList:
        """The images of a key list."""
        file, labels_file = lists / f"{part}_key_list.txt", lists / f"{part.partition('_')[0]}_label_kv.txt"
        for needed in (file, labels_file):
            check_argument(needed.is_file(), "root", f"a folder with `{needed.relative_to(self.folder)}`", self.root)
        keys, values, _ = read_pairs(labels_file)
        label_of = dict(zip(keys, values, strict=True))
        left_out = "" if (self.folder / "images").is_dir() else "images/"
        paths, labels, rows = [], [], []
        for row, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            key = line.strip()
            if key:
                label = label_of.get(key, -1)
                if not 0 <= label < len(_CLOTHES):
                    raise NoisyLabelError(
                        f"Expected '{labels_file}' to have a label from 0 to 13 for '{key}' (row {row} of '{file}'), "
                        f"but got {label_of.get(key, 'none')}."
                    )
                paths.append(key.removeprefix(left_out))
                labels.append(label)
                rows.append(row)
        return ImageList.of(self.folder, paths, labels, file, rows)
