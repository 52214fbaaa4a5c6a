"""Stores keyed by dataset index."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.collectives import process_rank
from lightning_noisy.errors import check_argument
from lightning_noisy.state.exchange import exchange
from lightning_noisy.state.open_batch import OpenBatch
from lightning_noisy.state.row_format import Columns, RowFormat, format_of
from lightning_noisy.state.row_memory import new_columns
from lightning_noisy.state.saved_rows import SavedRows
from lightning_noisy.state.shard import Shard
from lightning_noisy.storage import PLAIN, Storage

_NOBODY = -1  # the writer of a row that no process has written in this epoch


class SampleStore(SavedRows):
    """A per-sample store: row ``i`` belongs to sample ``i`` of the training set.

    It is neither a module nor a buffer, so that DDP does not overwrite it with rank 0's. Nothing here reads a value
    back to the host and nothing touches the whole store in a training step.

    Args:
        num_samples: Rows N.
        shape: Shape of a row; ``()`` stores one number a sample.
        fill: Initial value of every entry.
        dtype: Type of the rows; arithmetic of floating-point stores is float32 (float64 for float64). float16 halves
            the memory of stores of probabilities; bfloat16 is refused, since its running means are wrong by percents.
        device: Where the store lives; the CPU, if a file has it.
        storage: How float32 rows are kept.

    Raises:
        NoisyLabelError: ``num_samples`` < 1, ``dtype`` is bfloat16, or a ``top_k`` that does not fit the rows.
    """

    def __init__(
        self,
        num_samples: int,
        shape: tuple[int, ...] = (),
        fill: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        storage: Storage = PLAIN,
    ) -> None:
        check_argument(num_samples >= 1, "num_samples", "at least 1", num_samples)
        check_argument(dtype != torch.bfloat16, "dtype", "float32, float16 or an integer type", dtype)
        row_format, shard = format_of(shape, dtype, storage), Shard.of(storage)
        columns = new_columns(row_format, shard.size(num_samples), fill, device, storage.folder)
        self._begin(row_format, columns, num_samples, shard, storage.folder)

    def _begin(
        self, row_format: RowFormat, columns: Columns, num_samples: int, shard: Shard, folder: str | None
    ) -> None:
        self.format, self.columns, self.num_samples, self.shard = row_format, columns, num_samples, shard
        self.folder = folder
        self.in_run = False
        """Whether a run owns it: saves it, and merges it over processes."""
        self.undo = Undo()
        self._plain, kept = row_format.plain, self.columns["values"]
        self._touched = torch.zeros(len(kept), dtype=torch.bool, device=kept.device)
        self._writer = torch.full((len(kept),), _NOBODY, dtype=torch.int16, device=kept.device)

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
        rows = index.to(self.values.device)
        rows = rows if self.shard.count == 1 else self.shard.places(rows)
        kept = {name: column.index_select(0, rows) for name, column in self.columns.items()}
        return self._read(kept).to(index.device)

    def update(self, index: Tensor, values: Tensor) -> Tensor:
        """Write rows; of a sample that stands twice in ``index`` the first row counts. Where a step runs again, none.

        Args:
            index: int64 (B,).
            values: (B, *shape), of any floating-point type and device.

        Returns:
            The rows as stored, in the order of ``index`` and on its device.

        Raises:
            NoisyLabelError: ``values`` has another shape.
        """
        self._check_rows(index, values)
        if self.undo.open_batch.repeated:
            return self.get(index)
        home = self.values.device
        rows = index.to(home) if self.shard.count == 1 else self.shard.places(index.to(home))
        first = first_occurrence(rows)
        written = {name: column.to(home)[first] for name, column in self._kept(values.detach()).items()}
        self.undo.note(self._changing(), rows)
        if self._alone:
            self._touched.index_fill_(0, rows, True)
        else:
            written = self._claim(rows, written)
        for name, column in written.items():
            self.columns[name].index_copy_(0, rows, column)
        return self._read(written).to(index.device)

    def lerp(self, index: Tensor, values: Tensor, weight: float) -> Tensor:
        """Move rows towards values: ``row <- row + weight * (value - row)``, a running mean with momentum 1 - weight.

        Args:
            index: int64 (B,).
            values: (B, *shape).
            weight: Share of the new value, in [0, 1].

        Returns:
            The new rows, as :meth:`update` does.

        Raises:
            NoisyLabelError: ``values`` has another shape.
        """
        self._check_rows(index, values)
        old = self.get(index)
        return self.update(index, old.lerp(values.detach().to(old), weight))

    def synchronize(self, within_epoch: bool = False) -> None:
        """Give every process the rows that any process has written since the last call.

        A collective, but for shards, which stay where they are: all processes must enter. Rows travel in chunks of
        fixed size. Where two processes have written the same sample (the padding of a distributed sampler) all keep the
        same one of the two rows, so that it counts once.

        Args:
            within_epoch: The epoch goes on: a row that came from another process stays as it is until its end, since
                what may still come for it is padding.
        """
        if not self._alone:
            exchange(self.columns, self._writer, self._touched.nonzero().squeeze(1))
        self._touched.zero_()
        if not within_epoch:
            self._writer.fill_(_NOBODY)

    def _kept(self, rows: Tensor) -> Columns:
        """What is kept of rows; asked in each batch, so without a call of another file where it can be."""
        return {"values": rows.to(self.values.dtype)} if self._plain else self.format.encode(rows)

    def _read(self, columns: Columns) -> Tensor:
        """The rows that are kept, likewise."""
        return columns["values"] if self._plain else self.format.decode(columns)

    def _claim(self, rows: Tensor, written: Columns) -> Columns:
        """Mark rows as this process's, but for those that another one has written in this epoch, which stay."""
        writer, me = self._writer[rows], process_rank()
        mine = (writer == _NOBODY) | (writer == me)
        self._writer.index_copy_(0, rows, writer.masked_fill(mine, me))
        self._touched.index_copy_(0, rows, self._touched[rows] | mine)
        return {
            name: torch.where(mine.reshape(-1, *[1] * (column.ndim - 1)), column, self.columns[name][rows])
            for name, column in written.items()
        }

    def _changing(self) -> tuple[Tensor, ...]:
        """What an update changes and a checkpoint holds."""
        columns = tuple(self.columns.values())
        return columns if self._alone else (*columns, self._writer, self._touched)

    @property
    def _alone(self) -> bool:
        """Whether no other process writes these rows. Asked in each batch, so without a call of another file."""
        return self.shard.count > 1 or not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)

    def _check_rows(self, index: Tensor, values: Tensor) -> None:
        wanted = (len(index), *self.shape)
        if values.shape != wanted:
            check_argument(False, "values", f"rows of shape {wanted}", tuple(values.shape))


def first_occurrence(index: Tensor) -> Tensor:
    """For each entry of ``index`` (B,) the position at which its value stands first, without a host round trip."""
    ordered, order = index.sort(stable=True)
    return order[torch.searchsorted(ordered, index)]


class Undo:
    """Remembers the rows that a store overwrites while a batch is open, until the batch has ended."""

    def __init__(self) -> None:
        self.open_batch = OpenBatch()
        """That of the run which owns the store."""
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] = []
        self._written_in: object | None = None

    def note(self, columns: Iterable[Tensor], rows: Tensor) -> None:
        """These rows of some tensors are about to be overwritten."""
        if self.open_batch.now is None:
            return
        if self._written_in is not self.open_batch.now:
            self._written_in, self._overwritten = self.open_batch.now, []
        self._overwritten += [(column, rows, column.index_select(0, rows)) for column in columns]

    def take_back(self) -> None:
        """The open batch is given up: rows are again what they were."""
        for column, rows, before in reversed(self._changes()):
            column.index_copy_(0, rows, before)
        self._written_in = None

    def before(self, column: Tensor) -> Tensor:
        """A tensor as it was before the open batch; itself where nothing has changed."""
        changes = [(rows, before) for changed, rows, before in self._changes() if changed is column]
        if changes:
            column = column.clone()
        for rows, before in reversed(changes):
            column.index_copy_(0, rows, before)
        return column

    def _changes(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        written = self._written_in is not None and self._written_in is self.open_batch.now
        return self._overwritten if written else []
