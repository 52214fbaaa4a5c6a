"""People's own images, in a folder for each class."""

from __future__ import annotations

from typing_extensions import override

from lightning_noisy.data.image_list import ImageList, class_folders, images_in_folders
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.errors import check_argument


class ImageFolderDataModule(ImageListDataModule):
    """Images in folders: ``train/<class>/...`` under ``root``, and, where they are there, ``val/`` and ``test/`` alike.

    The folders of ``train`` name the classes, sorted: as numbers where all are integers (torchvision sorts them as
    text), else as text; ``class_names`` has them. Images may lie deeper, in formats that torchvision knows; hidden
    files and folders are passed over. The order of the training set is that of classes and paths.

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
        check_argument((root / "train").is_dir(), "root", "a folder with `train/<class>/<image>`", self.root)
        names = class_folders(root / "train")
        splits = [split for split in ("train", "val", "test") if (root / split).is_dir()]
        return names, {split: images_in_folders(root, split, names) for split in splits}
