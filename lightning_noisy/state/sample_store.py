"""Stores keyed by dataset index."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.collectives import process_rank
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.duplicates import first_occurrence
from lightning_noisy.state.exchange import exchange, gather_shards
from lightning_noisy.state.row_format import Columns, RowFormat, format_of, saved_format
from lightning_noisy.state.row_memory import new_columns, placed
from lightning_noisy.state.row_table import RowTable
from lightning_noisy.state.shard import Shard
from lightning_noisy.state.undo import Undo
from lightning_noisy.storage import PLAIN, Storage

_NOBODY = -1


class SampleStore(RowTable):
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
        """Where a file has the rows; None in memory."""
        self.in_run = False
        """Whether a run owns it: saves it, and merges it over processes."""
        self.undo = Undo()
        """What the open batch has overwritten."""
        kept = self.values
        self._touched = torch.zeros(len(kept), dtype=torch.bool, device=kept.device)
        self._writer = torch.full((len(kept),), _NOBODY, dtype=torch.int16, device=kept.device)

    def to(self, device: torch.device | str) -> SampleStore:
        """Move the store, unless a file has it; returns itself."""
        if self.folder is not None:
            return self
        self.columns = {name: column.to(device) for name, column in self.columns.items()}
        self._touched, self._writer = self._touched.to(device), self._writer.to(device)
        return self

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
        rows = self.shard.places(index.to(home))
        first = first_occurrence(rows)
        written = {name: column.to(home)[first] for name, column in self.format.encode(values.detach()).items()}
        self.undo.note(self._changing(), rows)
        if self._alone:
            self._touched.index_fill_(0, rows, True)
        else:
            written = self._claim(rows, written)
        for name, column in written.items():
            self.columns[name].index_copy_(0, rows, column)
        return self.format.decode(written).to(index.device)

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

    def state_dict(self) -> dict[str, Any]:
        """The store as a plain dict, inside a batch as it was before. Never a collective.

        Of a shard it has the rows of this process, see :meth:`whole_state`.
        """
        saved: dict[str, Any] = {name: self.undo.before(column).cpu() for name, column in self.columns.items()}
        saved |= {"writer": self.undo.before(self._writer).cpu(), **self.format.saved()}
        return saved if self.shard.count == 1 else {**saved, "num_samples": self.num_samples}

    def whole_state(self) -> dict[str, Any]:
        """:meth:`state_dict`, on rank 0 with the rows of all processes: a collective for shards."""
        state = self.state_dict()
        if self.shard.count == 1:
            return state
        columns = {name: state[name] for name in (*self.format.names, "writer")}
        state |= gather_shards(columns, state.pop("num_samples"))
        return state

    @classmethod
    def restored(cls, state: dict[str, Any]) -> SampleStore:
        """A store of the shape and type of a saved one, on the CPU. It has its very rows: nobody else may use them."""
        row_format, store = saved_format(state), cls.__new__(cls)
        columns = {name: state[name] for name in row_format.names}
        store._begin(row_format, columns, state.get("num_samples", len(columns["values"])), Shard(), None)
        store._writer = state["writer"]
        return store

    def settle(self, storage: Storage) -> None:
        """Keep, of rows that were loaded, those that this process keeps, where it keeps them.

        Raises:
            NoisyLabelError: Rows of other processes are missing.
        """
        kept, shard = len(self.values), Shard.of(storage)
        if kept < self.shard.size(self.num_samples):
            raise NoisyLabelError(
                f"The checkpoint has {kept} of {self.num_samples} rows: it was written when a process had failed, and "
                "the others could not give theirs. Resume from an earlier one."
            )
        if (shard, storage.folder) != (self.shard, self.folder):
            undo, writer = self.undo, shard.of_all(self._writer).clone()
            columns = {name: placed(shard.of_all(column), storage.folder) for name, column in self.columns.items()}
            self._begin(self.format, columns, self.num_samples, shard, storage.folder)
            self.undo, self._writer = undo, writer

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved store.

        Raises:
            NoisyLabelError: It has another number of samples or another row shape, or rows are kept in another way.
        """
        saved = saved_format(state)
        if (len(state["values"]), saved.shape) != (self.num_samples, self.shape):
            raise NoisyLabelError(
                f"The saved store has shape {(len(state['values']), *saved.shape)} (samples, ...), this run needs "
                f"{(self.num_samples, *self.shape)}: resume with the data set that wrote the checkpoint."
            )
        self.check_format(saved)
        for name, column in self.columns.items():
            column.copy_(self.shard.of_all(state[name]))
        self._writer.copy_(self.shard.of_all(state["writer"]))
        self._touched.zero_()

    def check_format(self, wanted: RowFormat) -> None:
        """Refuse rows that are kept in another way, which would round, or lose, what was written.

        Raises:
            NoisyLabelError: They are.
        """
        if self.format != wanted:
            raise NoisyLabelError(
                f"The checkpoint's rows and those of this run are kept in two ways, {wanted} and {self.format}: resume "
                "with the `storage` that wrote it."
            )

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
