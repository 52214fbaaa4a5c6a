"""Rows of samples, as they are kept and as they are read."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_noisy.state.exchange import CHUNK_BYTES
from lightning_noisy.state.row_format import Columns, RowFormat
from lightning_noisy.state.shard import Shard


class RowTable:
    """What a process keeps of the rows of N samples. Nothing here writes."""

    format: RowFormat
    """What is kept of a row."""
    columns: Columns
    """What is kept of the rows, by name."""
    num_samples: int
    """N, over all processes."""
    shard: Shard
    """Which samples this process has rows of."""

    @property
    def values(self) -> Tensor:
        """What is kept: rows (N, *shape), or entries of them (N, k + 1). :meth:`rows` gives them as they are read."""
        return self.columns["values"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self.format.shape

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take."""
        return sum(column.nbytes for column in self.columns.values())

    def get(self, index: Tensor) -> Tensor:
        """Copies of the rows ``index`` (B,), on the index's device; float16 rows come as float32."""
        rows = self.shard.places(index.to(self.values.device))
        kept = {name: column.index_select(0, rows) for name, column in self.columns.items()}
        return self.format.decode(kept).to(index.device)

    def rows(self) -> Tensor:
        """The rows of all samples that it has, as :meth:`get` gives them; a copy where they are kept otherwise."""
        return self.format.decode(self.columns)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Index (M,) and rows (M, *shape) of all samples that it has, some megabytes at a time; on the CPU."""
        size = CHUNK_BYTES // (4 * max(1, torch.Size(self.shape).numel()))
        for index in torch.split(self.shard.samples(self.num_samples), max(1, size)):
            yield index, self.get(index)
