"""WebVision-Mini."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_noisy.data.image_files import class_folders, images_in_folders, is_integer, read_pairs
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.errors import check_argument

_CLASSES = 50
_IMAGENET_LISTS = ("imagenet_val.txt", "val.txt", "ILSVRC2012_devkit_t12/data/val.txt")


class WebVisionMiniDataModule(ImageListDataModule):
    """WebVision-Mini: the first 50 classes of WebVision 1.0 from Google, 65,944 images with labels of their queries.

    ``root`` holds ``info/train_filelist_google.txt`` and ``info/val_filelist.txt``, lines ``<path> <label>``, of which
    labels below 50 are kept. Training images are ``<root>/<path>``; the test set is WebVision's validation set,
    ``<root>/val_images_256/<path>`` (2,500 images). Nobody knows which training labels are wrong.

    With ``imagenet_root`` the validation images of ILSVRC12 of the same classes are a second test set, whose metrics
    are ``imagenet/acc``, ``imagenet/acc_top5`` and so on. They lie in ``<imagenet_root>/val`` in a folder for each
    class: ``0`` to ``49``, or all the WordNet numbers ``n01440764`` and so on, whose first 50 are meant. Or they lie in
    ``val`` itself, and a list has lines ``<name> <label>`` with labels in the order of the WordNet numbers:
    ``imagenet_val.txt`` (ELR), ``val.txt``, or ``ILSVRC2012_devkit_t12/data/val.txt`` (NAL) under ``imagenet_root``.

    By default images are resized to 320 and scaled to 299 at random, as in DivideMix. For the 256-pixel release ELR+
    and NAL take ``image_size=227, resize=0, crop="random"``; DISC ``image_size=224, resize=256, crop="random",
    padding=28, padding_mode="reflect"`` and the normalization of Clothing1M. DAL takes ``image_size=224, resize=None``
    and jitters colors: ``views=["strong"]`` with ``strong=torchvision.transforms.v2.ColorJitter(0.4, 0.4, 0.4, 0.2)``.

    Args:
        root: Folder that holds WebVision.
        imagenet_root: Folder that holds ``val`` of ILSVRC12; None leaves the second test set out.
        image_size: Side of the crop, in pixels.
        resize: Shorter side that images are brought to first; 0 leaves them.
        **options: Further arguments are those of :class:`~lightning_noisy.data.ImageListDataModule`, without ``noise``.

    Raises:
        NoisyLabelError: As there.

    References:
        Li et al., WebVision Database: Visual Learning and Understanding from Web Data, 2017;
        Chen et al., Understanding and Utilizing Deep Neural Networks Trained with Noisy Labels, ICML 2019.
    """

    noisy: ClassVar[bool] = True

    def __init__(
        self,
        root: str,
        imagenet_root: str | None = None,
        image_size: int = 299,
        resize: int | None = 320,
        **options: Any,
    ) -> None:
        super().__init__(root, image_size=image_size, resize=resize, **options)
        self.imagenet_root = imagenet_root

    @override
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        lists = {
            "train": self._listed("train_filelist_google.txt", ""),
            "test": self._listed("val_filelist.txt", "val_images_256/"),
        }
        if self.imagenet_root is not None:
            lists["imagenet"] = _imagenet(Path(self.imagenet_root).expanduser())
        return [str(label) for label in range(_CLASSES)], lists

    def _listed(self, name: str, prefix: str) -> ImageList:
        """Images of a file list."""
        file = self.folder / "info" / name
        check_argument(file.is_file(), "root", f"a folder with `info/{name}`", self.root)
        paths, labels, rows = read_pairs(file)
        return ImageList.of(self.root, [prefix + path for path in paths], labels, file, rows).below(_CLASSES)


def _imagenet(root: Path) -> ImageList:
    """Validation images of ILSVRC12, of the first 50 classes."""
    wanted = (
        "a folder with `val/<class>/<image>`, classes `0` to `49` or all the WordNet numbers, or with `val/<image>` "
    )
    wanted += "and a list `imagenet_val.txt` or `val.txt`"
    check_argument((root / "val").is_dir(), "imagenet_root", wanted, str(root))
    file = next((root / name for name in _IMAGENET_LISTS if (root / name).is_file()), None)
    folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in (root / "val").iterdir())
    if file is not None and not folders:
        paths, labels, rows = read_pairs(file)
        return ImageList.of(root, [f"val/{path}" for path in paths], labels, file, rows).below(_CLASSES)
    names = class_folders(root / "val", "imagenet_root")
    numbers = all(is_integer(name) for name in names)
    usual = names == [str(label) for label in range(len(names))] if numbers else all(map(_is_wordnet, names))
    check_argument(usual and len(names) >= _CLASSES, "imagenet_root", wanted, str(root))
    return images_in_folders(root, "val", names).below(_CLASSES)


def _is_wordnet(name: str) -> bool:
    return name.startswith("n") and name[1:].isdecimal()
