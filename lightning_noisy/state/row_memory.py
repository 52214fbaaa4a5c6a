"""Where columns of rows lie: in memory, or in a file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.row_format import Columns, RowFormat


def new_columns(
    row_format: RowFormat, count: int, fill: float, device: torch.device | str, folder: str | None
) -> Columns:
    """Columns of so many rows whose every entry is ``fill``; with a folder in a file of it, else on a device."""
    if folder is None:
        return row_format.columns(count, fill, device)
    columns = {}
    for name, row in row_format.columns(1, fill, "cpu").items():
        columns[name] = _mapped((count, *row.shape[1:]), row.dtype, folder)
        if row.any():
            columns[name].copy_(row.expand_as(columns[name]))
    return columns


def full(shape: Sequence[int], fill: float, dtype: torch.dtype, folder: str | None) -> Tensor:
    """A column whose every entry is ``fill``, on the CPU; with a folder in a file of it."""
    if folder is None:
        return torch.full(tuple(shape), fill, dtype=dtype)
    column = _mapped(shape, dtype, folder)
    return column.fill_(fill) if fill else column


def placed(column: Tensor, folder: str | None) -> Tensor:
    """A copy of a column; with a folder in a file of it."""
    return column.clone() if folder is None else _mapped(column.shape, column.dtype, folder).copy_(column)


def _mapped(shape: Sequence[int], dtype: torch.dtype, folder: str) -> Tensor:
    """Zeros in a file that has no name, so that it goes when nobody holds it any more."""
    path, count = Path(folder).expanduser() / f".{uuid.uuid4().hex}.rows", torch.Size(shape).numel()
    size = count * dtype.itemsize
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _reserve(path, size)
            return torch.from_file(os.fspath(path), shared=True, size=count, dtype=dtype).view(shape)
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise NoisyLabelError(
            f"Cannot keep {size / 2**30:.3g} GiB of rows in '{folder}', argument `folder`: {error.strerror}."
        ) from error


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its room on the disk: without it a later write could end the process."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
