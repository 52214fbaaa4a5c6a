"""Images in binary files of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torchvision.transforms.v2.functional import to_pil_image
from typing_extensions import override

from lightning_noisy.data.array_file import Array
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.errors import NoisyLabelError

_SIDE = 64
_PIXELS = 3 * _SIDE * _SIDE
_HEADER = 8
_RECORD = _HEADER + _PIXELS


@dataclass(frozen=True)
class RecordList(ImageList):
    """Images in records of 12,296 bytes: id and label, int32, and 64 x 64 pixels, all of red, of green and of blue.

    ``paths`` are those of the files, the same for all of their images, and ``rows`` the numbers of the records in them,
    counted from 1.
    """

    @override
    def load(self, index: int) -> Any:
        assert self.rows is not None
        with Path(self.path(index)).open("rb") as file:
            file.seek((int(self.rows[index]) - 1) * _RECORD + _HEADER)
            pixels = np.frombuffer(file.read(_PIXELS), dtype=np.uint8)
        return to_pil_image(pixels.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))

    @override
    def contradiction(self) -> None:
        """A record has one label."""

    @property
    @override
    def sources(self) -> np.ndarray[Any, Any]:
        """File and record, as ``data_batch_1.bin#17``."""
        assert self.rows is not None
        return np.array([b"%s#%d" % pair for pair in zip(self.paths.tolist(), self.rows.tolist(), strict=True)])

    @override
    def name(self, index: int) -> str:
        assert self.rows is not None
        return f"record {int(self.rows[index])} of '{self.path(index)}'"


def read_records(root: Path, names: Sequence[str], num_classes: int) -> RecordList:
    """The images of all records of some files, in the order of their ids.

    Args:
        root: The folder of the files.
        names: Their names.
        num_classes: Number of classes K. The byte order of a file is the one in which its labels lie in [0, K).

    Raises:
        NoisyLabelError: A file that is empty or no whole number of records, or whose labels are classes in neither byte
            order.
    """
    headers = [_headers(root / name, num_classes) for name in names]
    ids, labels = np.concatenate(headers).astype(np.int64).T
    order = ids.argsort(kind="stable")
    files = [name for name, header in zip(names, headers, strict=True) for _ in header]
    rows = np.concatenate([1 + np.arange(len(header)) for header in headers])
    listed = RecordList.of(root, files, labels.tolist(), rows=rows.tolist())
    return listed.take(torch.from_numpy(order))


def _headers(path: Path, num_classes: int) -> Array:
    """Ids and labels of a file's records, (N, 2)."""
    size = path.stat().st_size
    if size == 0 or size % _RECORD:
        raise NoisyLabelError(
            f"Expected '{path}' to hold records of {_RECORD} bytes (id, label, 3 x {_SIDE} x {_SIDE} pixels), but got "
            f"{size} bytes: fetch it again."
        )
    raw = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, _RECORD)[:, :_HEADER].copy()
    big, little = (cast(Array, raw.view(order)) for order in (">i4", "<i4"))
    for headers in (big, little):
        if ((headers[:, 1] >= 0) & (headers[:, 1] < num_classes)).all():
            return headers
    raise NoisyLabelError(
        f"Expected the labels in '{path}', int32 after an int32 id, to lie in [0, {num_classes}), but got up to "
        f"{big[:, 1].max()} in big-endian and {little[:, 1].max()} in little-endian order: take the files of the data "
        "set's own page."
    )
