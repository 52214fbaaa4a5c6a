"""Image files in folders and lists, and the names of their classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_noisy.data.image_list import ImageList
from lightning_noisy.errors import NoisyLabelError, check_argument, printable


def class_folders(folder: Path, argument: str = "root") -> list[str]:
    """Names of the folders in a folder, one for each class, sorted: as numbers if all are integers, else as text.

    Args:
        folder: Where they are.
        argument: What the user calls the way there, for messages.

    Raises:
        NoisyLabelError: There is none.
    """
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    check_argument(bool(names), argument, f"a folder with `{folder.name}/<class>/<image>`", str(folder))
    return sorted_names(names)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Class names in their order: as numbers if all are integers, else as text."""
    names = sorted(names)
    return sorted(names, key=int) if all(is_integer(name) for name in names) else names


def is_integer(name: str) -> bool:
    """Whether a name is an integer as Python writes it, not negative."""
    return name.isdecimal() and name.isascii() and str(int(name)) == name


def files_by_class(root: Path, folder: str, argument: str = "root") -> dict[str, list[str]]:
    """The image files of ``<root>/<folder>/<class>/`` at any depth, sorted, by their class.

    Hidden files and folders are passed over, and files without a suffix of images, with a line.

    Args:
        root: The folder that paths are relative to.
        folder: The split; empty where the classes lie in ``root``.
        argument: What the user calls the way there, for messages.

    Raises:
        NoisyLabelError: There is no folder of a class.
    """
    return {name: files_below(root, Path(folder, name)) for name in class_folders(root / folder, argument)}


def is_image(name: str) -> bool:
    """Whether a file has a suffix of images, and is not hidden."""
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def files_below(root: Path, folder: Path) -> list[str]:
    """Image files in a folder at any depth, relative to ``root``, sorted."""
    found: list[str] = []
    others: list[str] = []
    above = {os.fspath(root / folder): frozenset({(root / folder).resolve()})}
    for base, folders, names in os.walk(root / folder, followlinks=True):
        inside = {name: Path(base, name).resolve() for name in folders if not name.startswith(".")}
        way = above.pop(base)
        folders[:] = [name for name in folders if name in inside and inside[name] not in way]  # no link back to itself
        above |= {os.fspath(Path(base, name)): way | {inside[name]} for name in folders}
        for name in names:
            if not name.startswith("."):
                path = Path(base, name).relative_to(root).as_posix()
                (found if name.lower().endswith(IMG_EXTENSIONS) else others).append(path)
    if others:
        rank_zero_info(
            f"{len(others)} files in '{printable(root / folder)}' have no suffix of images and are passed over, the "
            f"first '{printable(min(others))}'."
        )
    return sorted(found)


def images_in_folders(root: Path, folder: str, class_names: Sequence[str]) -> ImageList:
    """The images of ``<root>/<folder>/<class>/``, at any depth, class by class, each in the order of their paths.

    Args:
        root: The folder that paths are relative to.
        folder: The split.
        class_names: Folder names of the classes 0 to K - 1; a class without a folder has no image here.

    Raises:
        NoisyLabelError: A folder of another name that holds images.
    """
    return labeled_files(root, files_by_class(root, folder), class_names, folder)


def labeled_files(root: Path, found: Mapping[str, Sequence[str]], class_names: Sequence[str], folder: str) -> ImageList:
    """The same of what :func:`files_by_class` has found."""
    foreign = next((name for name, files in found.items() if files and name not in set(class_names)), None)
    if foreign is not None:
        raise NoisyLabelError(
            f"'{root / folder}' holds the folder '{printable(foreign)}', which is none of the {len(class_names)} "
            "classes: move it away, or name it as its class."
        )
    sizes = [len(found.get(name, ())) for name in class_names]
    paths = [path for name in class_names for path in found.get(name, ())]
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    return ImageList.of(root, paths, labels)


def read_pairs(path: Path) -> tuple[list[str], list[int], list[int]]:
    """A text file with lines ``<path> <label>``: paths, labels, and the numbers of their lines, counted from 1.

    Raises:
        NoisyLabelError: A line is something else.
    """
    paths: list[str] = []
    labels: list[int] = []
    rows: list[int] = []
    with path.open(encoding="utf-8") as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name, _, label = line.strip().rpartition(" ")
            if not name or not is_integer(label):
                raise NoisyLabelError(
                    f"Expected line {row} of '{path}' to be `<path> <label>` with an integer label, but got "
                    f"{line.strip()!r}."
                )
            paths.append(name)
            labels.append(int(label))
            rows.append(row)
    return paths, labels, rows
