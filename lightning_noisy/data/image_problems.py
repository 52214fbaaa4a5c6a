"""What is wrong with image files: those that cannot be read, and copies that contradict each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from lightning_noisy.data.image_list import ImageList
from lightning_noisy.spreadsheets import write_csv

SKIPPED_FILE = "skipped_images.csv"
COPIES_FILE = "contradicting_images.csv"


class ImageProblems:
    """Those of several sets, for the lines and tables that tell of them."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str, int | str, str]] = []
        """Set, path, row and reason of each image that was left out."""
        self.copies: list[tuple[str, int, str, int | str, str]] = []
        """Set, number of the group, path, row and label of each that has a copy of another label."""

    def note_skipped(self, split: str, images: ImageList, bad: Mapping[int, str]) -> None:
        """Images are left out.

        Args:
            split: The set.
            images: All of it.
            bad: Their positions, and why.
        """
        if bad:
            first, why = next(iter(bad.items()))
            rank_zero_warn(
                f"{len(bad)} of {len(images)} {split} images cannot be read and are left out, the first "
                f"{images.name(first)} for: {why}."
            )
        self.skipped += [(split, *images.place(index), why) for index, why in bad.items()]

    def note_copies(self, split: str, images: ImageList, class_names: Sequence[str]) -> None:
        """Look for copies with different labels.

        Args:
            split: The set.
            images: What is used of it.
            class_names: Names of the classes.
        """
        groups = contradicting_copies(images)
        if groups:
            rank_zero_warn(
                f"{sum(map(len, groups))} {split} images are copies of {len(groups)} with different labels and are "
                f"kept, the first {images.name(groups[0][0])}."
            )
        self.copies += [
            (split, number, *images.place(index), class_names[int(images.labels[index])])
            for number, group in enumerate(groups, start=1)
            for index in group
        ]

    def write(self, folder: Path, prefix: str = "") -> None:
        """Write ``skipped_images.csv`` and ``contradicting_images.csv``; where there is nothing to tell, remove them.

        Args:
            folder: Where they go.
            prefix: How their names begin.
        """
        _write(folder / f"{prefix}{SKIPPED_FILE}", ("split", "path", "row", "reason"), self.skipped)
        _write(folder / f"{prefix}{COPIES_FILE}", ("split", "group", "path", "row", "label"), self.copies)


def contradicting_copies(images: ImageList) -> list[list[int]]:
    """Positions of images with the same content and different labels, a group for each content.

    A file that is listed twice is a copy of itself. Of different files only those of equal size are read; those that
    cannot be are passed over.

    Args:
        images: The images.
    """
    listed: dict[str, list[int]] = {}
    for index in range(len(images)):
        listed.setdefault(images.path(index), []).append(index)
    first = {positions[0]: positions for positions in listed.values()}
    sizes = _groups(first, lambda index: _size(Path(images.path(index))))
    contents = [group for same in sizes for group in _groups(same, lambda index: _digest(Path(images.path(index))))]
    alone = first.keys() - {index for group in contents for index in group}
    groups = [*contents, *([index] for index in alone)]
    copies = [sorted(position for index in group for position in first[index]) for group in groups]
    return sorted(group for group in copies if len(set(images.labels[group].tolist())) > 1)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        write_csv(path, header, rows)
    else:
        path.unlink(missing_ok=True)  # of an earlier run into this folder


def _groups(positions: Iterable[int], key: Callable[[int], Hashable | None]) -> list[list[int]]:
    """Positions with the same key, where several have it."""
    found: dict[Hashable, list[int]] = {}
    for position in positions:
        value = key(position)
        if value is not None:
            found.setdefault(value, []).append(position)
    return [group for group in found.values() if len(group) > 1]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except OSError:
        return None
