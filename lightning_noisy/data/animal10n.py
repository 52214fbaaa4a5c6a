"""ANIMAL-10N."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_noisy.data.image_files import images_in_folders, is_integer, sorted_names
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.data.record_list import read_records
from lightning_noisy.errors import NoisyLabelError, check_argument

_ANIMALS = (
    "cat",
    "lynx",
    "wolf",
    "coyote",
    "cheetah",
    "jaguar",
    "chimpanzee",
    "orangutan",
    "hamster",
    "guinea pig",
)


class Animal10NDataModule(ImageListDataModule):
    """ANIMAL-10N: 50,000 training images with about 8 % wrong labels, 5,000 clean test images, ten animals, 64 x 64.

    ``root`` holds the folders ``training`` and ``testing`` with files ``<label>_<anything>``, as published, or
    ``train/<label>/...`` and ``test/<label>/...``, or the binary files ``data_batch_1.bin`` and so on, and
    ``test_batch.bin``, of SELFIE's code, whose images stand in the order of their ids; the byte order of these files is
    told by their labels. Labels are 0 to 9, named as on the data set's page. Nobody knows which training labels are
    wrong.

    Augmentation is a random crop after padding by 4, and a flip (SURE). PLC and NAL flip only, ``crop="center"``;
    SELFIE and nested dropout do nothing, ``flip=False`` as well. Normalization is that of ImageNet.

    Args:
        root: Folder that holds the data.
        image_size: Side of the crop, in pixels.
        resize: Shorter side that images are brought to first; 0 leaves them.
        crop: As for :class:`~lightning_noisy.data.ImageListDataModule`.
        padding: Pixels on each side before a random crop; None is 4 there, else 0.
        **options: Further arguments are those of :class:`~lightning_noisy.data.ImageListDataModule`, without ``noise``.

    Raises:
        NoisyLabelError: As there; at ``setup`` also a file whose name does not begin with a label, or a binary one that
            holds something else.

    References:
        Song et al., SELFIE: Refurbishing Unclean Samples for Robust Deep Learning, ICML 2019.
    """

    noisy: ClassVar[bool] = True

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        resize: int | None = 0,
        crop: Literal["resized", "random", "center"] = "random",
        padding: int | None = None,
        **options: Any,
    ) -> None:
        default = 4 if crop == "random" else 0
        super().__init__(
            root,
            image_size=image_size,
            resize=resize,
            crop=crop,
            padding=default if padding is None else padding,
            **options,
        )

    @override
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        root = self.folder
        names = list(_ANIMALS)
        if (root / "training").is_dir() and (root / "testing").is_dir():
            return names, {"train": _numbered(root, "training"), "test": _numbered(root, "testing")}
        batches = _batches(root)
        if batches and (root / "test_batch.bin").is_file():
            sets = {"train": batches, "test": ["test_batch.bin"]}
            return names, {split: read_records(root, files, len(names)) for split, files in sets.items()}
        wanted = "a folder with `training/<label>_<name>` and `testing/...`, with `train/<label>/...` and `test/...`, "
        wanted += "or with `data_batch_1.bin` and `test_batch.bin`"
        check_argument((root / "train").is_dir() and (root / "test").is_dir(), "root", wanted, self.root)
        labels = [str(label) for label in range(len(names))]
        return names, {split: images_in_folders(root, split, labels) for split in ("train", "test")}


def _batches(root: Path) -> list[str]:
    """Names of the binary files of the training set, in the order of their numbers."""
    numbers = [path.stem.removeprefix("data_batch_") for path in root.glob("data_batch_*.bin")]
    return [f"data_batch_{number}.bin" for number in sorted_names(filter(is_integer, numbers))]


def _numbered(root: Path, folder: str) -> ImageList:
    """The files of a folder, in the order of their names, which begin with the label."""
    paths = sorted(path for path in (root / folder).iterdir() if not path.name.startswith("."))
    names = [path.name for path in paths]
    labels = [name.partition("_")[0] for name in names]
    for name, label in zip(names, labels, strict=True):
        if not is_integer(label) or int(label) >= len(_ANIMALS):
            raise NoisyLabelError(
                f"Expected the files in '{root / folder}' to be named `<label>_<name>` with a label from 0 to 9, but "
                f"got '{name}'."
            )
    return ImageList.of(root, [f"{folder}/{name}" for name in names], [int(label) for label in labels])
