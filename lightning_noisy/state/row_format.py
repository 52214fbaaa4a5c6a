"""What a store makes of rows before it keeps them, and of what it keeps when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.storage import Storage

_LARGEST_INT16 = 2**15

Columns = dict[str, Tensor]
"""What is kept of some rows: tensors (M, ...) by their names."""


class RowFormat(Protocol):
    """Between the rows that a store's owner sees and the columns that are kept; equal ones keep the same."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    @property
    def plain(self) -> bool:
        """Whether a row is kept as it is read, in one column."""
        ...

    def saved(self) -> dict[str, int]:
        """What a checkpoint needs beside the columns, to know the format."""
        ...

    def columns(self, count: int, fill: float, device: torch.device | str) -> Columns:
        """Columns of so many rows, every entry of which is ``fill``."""
        ...

    def encode(self, rows: Tensor) -> Columns:
        """What is kept of rows (M, *shape)."""
        ...

    def decode(self, columns: Mapping[str, Tensor]) -> Tensor:
        """The rows that are kept; float32 where less than that is kept."""
        ...


@dataclass(frozen=True)
class WholeRows:
    """Every entry of a row, in one type."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    names: ClassVar[tuple[str, ...]] = ("values",)

    @property
    def plain(self) -> bool:
        """Unless they are rounded to half precision."""
        return self.dtype != torch.float16

    def saved(self) -> dict[str, int]:
        """Nothing: the rows tell it."""
        return {}

    def __str__(self) -> str:
        """How a message calls it."""
        return f"whole in {self.dtype}"

    def columns(self, count: int, fill: float, device: torch.device | str) -> Columns:
        """One tensor."""
        return {"values": torch.full((count, *self.shape), fill, dtype=self.dtype, device=device)}

    def encode(self, rows: Tensor) -> Columns:
        """The rows, in the type of the store."""
        return {"values": rows.to(self.dtype)}

    def decode(self, columns: Mapping[str, Tensor]) -> Tensor:
        """The rows."""
        values = columns["values"]
        return values if self.plain else values.float()


@dataclass(frozen=True)
class LargestEntries:
    """The k largest of K probabilities, their classes, and the mass of the others, which is read as spread evenly."""

    num_classes: int
    top_k: int
    dtype: torch.dtype
    names: ClassVar[tuple[str, ...]] = ("values", "classes")
    plain: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(K,)."""
        return (self.num_classes,)

    def saved(self) -> dict[str, int]:
        """K."""
        return {"num_classes": self.num_classes}

    def __str__(self) -> str:
        """How a message calls it."""
        return f"their {self.top_k} largest entries of {self.num_classes} in {self.dtype}"

    def columns(self, count: int, fill: float, device: torch.device | str) -> Columns:
        """Entries and mass in one tensor (count, k + 1), classes in another (count, k)."""
        row = torch.full((1, self.num_classes), fill, device=device)
        return {name: column.repeat(count, 1) for name, column in self.encode(row).items()}

    def encode(self, rows: Tensor) -> Columns:
        """The largest entries, and what the others sum up to."""
        rows = rows.float()
        largest, classes = rows.topk(self.top_k, dim=1)
        outside = rows.scatter(1, classes, 0.0).sum(dim=1, keepdim=True)  # exactly 0 where nothing is left
        wide = torch.int16 if self.num_classes <= _LARGEST_INT16 else torch.int32
        return {"values": torch.cat([largest, outside], dim=1).to(self.dtype), "classes": classes.to(wide)}

    def decode(self, columns: Mapping[str, Tensor]) -> Tensor:
        """All entries, those outside alike."""
        values = columns["values"].float()
        largest, outside = values[:, :-1], values[:, -1:]
        rows = (outside / (self.num_classes - self.top_k)).repeat(1, self.num_classes)
        return rows.scatter_(1, columns["classes"].long(), largest)


def format_of(shape: tuple[int, ...], dtype: torch.dtype, storage: Storage) -> RowFormat:
    """How rows are kept.

    Args:
        shape: Shape of a row.
        dtype: Its type as the owner means it. Integers and float64 are kept as they are.
        storage: What the user wants.

    Raises:
        NoisyLabelError: ``top_k`` for rows that are no vectors, or as many entries as there are.
    """
    if dtype != torch.float32:
        return WholeRows(shape, dtype)
    kept = torch.float16 if storage.dtype == "float16" else torch.float32
    if storage.top_k is None:
        return WholeRows(shape, kept)
    check_argument(len(shape) == 1, "top_k", f"None for rows of shape {shape}", storage.top_k)
    check_argument(storage.top_k < shape[0], "top_k", f"less than {shape[0]}, the number of classes", storage.top_k)
    return LargestEntries(shape[0], storage.top_k, kept)


def row_bytes(row_format: RowFormat) -> int:
    """Bytes that a row takes."""
    return sum(column.nbytes for column in row_format.columns(1, 0.0, "cpu").values())


def saved_format(state: Mapping[str, Any]) -> RowFormat:
    """The format of a store's saved state."""
    values, num_classes = state["values"], state.get("num_classes")
    if num_classes is None:
        return WholeRows(tuple(values.shape[1:]), values.dtype)
    return LargestEntries(num_classes, values.shape[1] - 1, values.dtype)
