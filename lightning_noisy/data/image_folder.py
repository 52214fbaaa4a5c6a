"""People's own images, in a folder for each class."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.data.image_files import files_below, files_by_class, images_in_folders, is_image, labeled_files
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.errors import NoisyLabelError, check_argument, printable


class ImageFolderDataModule(ImageListDataModule):
    """Images in folders: ``train/<class>/...`` under ``root``, and, where they are there, ``val/`` and ``test/`` alike.

    Without a folder ``train`` the classes lie in ``root`` itself, ``<class>/...``, and all images are for training.

    The folders of the training set name the classes, sorted: as numbers where all are integers (torchvision sorts them
    as text), else as text; ``class_names`` has them. A folder without an image is no class, which is said. Images may
    lie deeper, in formats that torchvision knows; hidden files and folders are passed over. The order of the training
    set is that of classes and paths.

    Without ``noise`` the labels are those of the run, and nobody knows which are right: ``clean_targets`` is None. With
    it they are clean, and the noise turns them into those of the run; labels in ``val`` and ``test`` stay as they are.

    Arguments and errors are those of :class:`~lightning_noisy.data.ImageListDataModule`; ``val_fraction`` is for data
    without ``val``.

    Example::

        data = ImageFolderDataModule("photos", image_size=224, batch_size=64, num_workers=8)
        NoisyLabelModule(TorchvisionBackbone("resnet50"), LinearHead, GeneralizedCrossEntropy(), num_classes=12)
    """

    @override
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        root = self.folder
        train = "train" if (root / "train").is_dir() else ""
        wanted = "a folder with `train/<class>/<image>`, or with `<class>/<image>`"
        folders = [entry.name for entry in (root / train).iterdir() if entry.is_dir() and entry.name[0] != "."]
        others = [split for split in ("val", "test") if (root / split).is_dir()]
        check_argument(bool(folders) and (train != "" or not others), "root", wanted, self.root)
        if train:
            _check_beside(root)
        loose = [entry.name for entry in (root / train).iterdir() if entry.is_file() and is_image(entry.name)]
        if loose:
            rank_zero_warn(
                f"{len(loose)} images lie in '{printable(root / train)}' beside the folders of classes and are passed "
                f"over, the first '{printable(min(loose))}'."
            )
        found = files_by_class(root, train)
        names = [name for name, files in found.items() if files]
        empty = ", ".join(f"'{printable(name)}'" for name, files in found.items() if not files)
        if empty:
            rank_zero_warn(f"Folders without an image count as no class: {empty}.")
        check_argument(bool(names), "root", f"{wanted}, not without any image", self.root)
        lists = {"train": labeled_files(root, found, names, train)}
        return names, lists | {split: images_in_folders(root, split, names) for split in others}


def _check_beside(root: Path) -> None:
    """Refuse folders of images that would be passed over."""
    for entry in sorted(root.iterdir()):
        known = entry.name in ("train", "val", "test") or entry.name.startswith(".")
        if entry.is_dir() and not known and files_below(root, Path(entry.name)):
            raise NoisyLabelError(
                f"'{printable(entry)}' holds images beside '{root / 'train'}', where all classes should lie: move it "
                "away, call it `val` or `test`, or, if `train` is a class, give it another name."
            )
