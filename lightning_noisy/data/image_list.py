"""Images in files, listed with their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchvision.transforms import v2
from typing_extensions import Self

from lightning_noisy.collectives import gather_over_processes, process_count, process_rank
from lightning_noisy.data.photos import read_photo
from lightning_noisy.errors import NoisyLabelError

_CHUNK = 10_000  # images between two lines of progress


@dataclass(frozen=True)
class ImageList:
    """Paths of images with their labels. ``images[i]`` decodes one to RGB, see :func:`read_photo`.

    Paths are kept as bytes of fixed width in one array, which worker processes share.

    Args:
        root: The folder that paths are relative to.
        paths: Bytes (N,), as ``os.fsencode`` gives them.
        labels: int64 (N,).
        source: The file that lists them, None for folders.
        rows: Where they stand in ``source``, counted from 1, int64 (N,).
        clean: Clean labels beside the given ones, int64 (N,), None where nobody knows them.
    """

    root: str
    paths: np.ndarray[Any, Any]
    labels: Tensor
    source: str | None = None
    rows: Tensor | None = None
    clean: Tensor | None = None

    @classmethod
    def of(
        cls,
        root: str | Path,
        paths: Sequence[str],
        labels: Sequence[int],
        source: str | Path | None = None,
        rows: Sequence[int] | None = None,
        clean: Sequence[int] | None = None,
    ) -> Self:
        """A list from plain values."""
        return cls(
            str(root),
            np.array([os.fsencode(path) for path in paths], dtype=np.bytes_),
            torch.tensor(labels, dtype=torch.int64),
            None if source is None else str(source),
            None if rows is None else torch.tensor(rows, dtype=torch.int64),
            None if clean is None else torch.tensor(clean, dtype=torch.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        """The image at a position, a PIL image in RGB.

        Raises:
            NoisyLabelError: It cannot be read, which the message says of its path and row.
        """
        try:
            return self.load(index)
        except Exception as error:  # decoders raise nearly anything
            raise NoisyLabelError(
                f"Cannot read image {self.name(index)}: {_reason(error)}; mend or drop it, or leave such images out "
                "with `on_error='skip'`."
            ) from error

    def load(self, index: int) -> Any:
        """The image at a position, with the error of whoever decodes it."""
        return read_photo(self.path(index))

    def path(self, index: int) -> str:
        """Path of the image at a position, with the root."""
        return str(Path(Path(self.root).expanduser(), os.fsdecode(self.paths[index])))

    def name(self, index: int) -> str:
        """Path of the image at a position, and its row where a file lists it."""
        where = f" (row {int(self.rows[index])} of '{self.source}')" if self.rows is not None else ""
        return f"'{self.path(index)}'{where}"

    def place(self, index: int) -> tuple[str, int | str]:
        """Path of the image at a position as it was listed, and its row, empty where no file lists it."""
        return os.fsdecode(self.paths[index]), "" if self.rows is None else int(self.rows[index])

    def take(self, positions: Tensor) -> Self:
        """Some of the images, by their positions, int64 (M,)."""
        rows, clean = (None if column is None else column[positions] for column in (self.rows, self.clean))
        paths, labels = self.paths[positions.numpy()], self.labels[positions]
        return replace(self, paths=paths, labels=labels, rows=rows, clean=clean)

    @property
    def sources(self) -> np.ndarray[Any, Any]:
        """What each image is in the user's own data, (N,): its path relative to ``root``, as it was listed."""
        return self.paths

    def below(self, num_classes: int) -> Self:
        """The images of the first classes."""
        return self.take((self.labels < num_classes).nonzero().squeeze(1))

    def contradiction(self) -> tuple[int, int] | None:
        """Positions of the first image that is listed twice with two labels, given or clean; None without any."""
        _, first, which = np.unique(self.paths, return_index=True, return_inverse=True)
        if len(first) == len(self):
            return None
        original = torch.from_numpy(first[which])
        columns = [self.labels] if self.clean is None else [self.labels, self.clean]
        wrong = torch.stack([column != column[original] for column in columns]).any(dim=0).nonzero()
        return (int(original[wrong[0]]), int(wrong[0])) if len(wrong) else None

    def missing(self) -> list[int]:
        """Positions of images that are not there. Each folder is listed once, faster than to ask N times."""
        folders: dict[str, set[str]] = {}
        found = []
        for index in range(len(self)):
            path = self.path(index)
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = _names(folder)
            # A file system that does not tell upper from lower case knows more names than it lists.
            if name not in folders[folder] and not Path(path).is_file():
                found.append(index)
        return found

    def unreadable(self, threads: int = 1) -> dict[int, str]:
        """Positions of images that cannot be decoded, and why. A collective: processes share the work.

        Every image is read and decoded once.

        Args:
            threads: Images that are decoded at the same time in each process.
        """
        mine = range(process_rank(), len(self), process_count())
        found: dict[int, str] = {}
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for start in range(0, len(mine), _CHUNK):
                part = mine[start : start + _CHUNK]
                found |= {index: why for index, why in zip(part, pool.map(self._problem, part), strict=True) if why}
                rank_zero_info(f"Checked {min(part[-1] + process_count(), len(self)):,} of {len(self):,} images")
        gathered = [item for other in gather_over_processes(found) for item in other.items()]
        return dict(sorted(gathered))

    def readable(self, index: int) -> Any:
        """The image at a position, or in words why it cannot be read."""
        try:
            return self.load(index)
        except Exception as error:
            return _reason(error)

    def squares(self, side: int, threads: int = 1) -> Tensor:
        """All images as bytes, uint8 (N, 3, side, side): the shorter side is brought to ``side``, the longer cropped.

        Args:
            side: In pixels.
            threads: Images that are decoded at the same time.

        Raises:
            NoisyLabelError: One cannot be read.
        """
        made = torch.empty(len(self), 3, side, side, dtype=torch.uint8)
        squared = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])
        with ThreadPoolExecutor(max(1, threads)) as pool:
            for index, image in enumerate(pool.map(lambda at: squared(self[at]), range(len(self)))):
                made[index] = image
        return made

    def _problem(self, index: int) -> str | None:
        image = self.readable(index)
        return image if isinstance(image, str) else None


def _names(folder: str) -> set[str]:
    return set(os.listdir(folder or ".")) if Path(folder).is_dir() else set()  # noqa: PTH208  a set of a million names


def _reason(error: Exception) -> str:
    """The first line of an error without the path, which stands elsewhere."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0].partition(" <_io")[0] if str(error) else type(error).__name__
