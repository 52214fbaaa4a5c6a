"""Rows of samples as they are kept, saved, loaded and worked on as a whole: what a training step does not do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.exchange import CHUNK_BYTES, gather_shards
from lightning_noisy.state.row_format import Columns, RowFormat, saved_format
from lightning_noisy.state.row_memory import placed
from lightning_noisy.state.shard import Shard
from lightning_noisy.storage import Storage

if TYPE_CHECKING:
    from lightning_noisy.state.sample_store import Undo


class SavedRows:
    """What a process keeps of the rows of N samples, and how it is saved, loaded and moved."""

    format: RowFormat
    """What is kept of a row."""
    columns: Columns
    """What is kept of the rows, by name."""
    num_samples: int
    """N, over all processes."""
    shard: Shard
    """Which samples this process has rows of."""

    undo: Undo
    """What the open batch has overwritten."""
    folder: str | None
    """Where a file has the rows; None in memory."""
    _touched: Tensor
    _writer: Tensor

    @abstractmethod
    def _begin(
        self, row_format: RowFormat, columns: Columns, num_samples: int, shard: Shard, folder: str | None
    ) -> None:
        """Start with these rows."""

    @abstractmethod
    def get(self, index: Tensor) -> Tensor:
        """Copies of rows."""

    def rows(self) -> Tensor:
        """The rows of all samples that it has, as :meth:`get` gives them; a copy where they are kept otherwise."""
        return self.format.decode(self.columns)

    def chunks(self, samples: Tensor | None = None) -> Iterator[Tensor]:
        """The index (M,) of samples, some megabytes of rows at a time.

        Args:
            samples: int64 (N,); None all that it has, where the rows lie.
        """
        if samples is None:
            samples = self.shard.samples(self.num_samples).to(self.columns["values"].device)
        size = CHUNK_BYTES // (4 * max(1, torch.Size(self.format.shape).numel()))
        yield from torch.split(samples, max(1, size))

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Index (M,) and rows (M, *shape) of all samples that it has, some megabytes at a time; on the CPU."""
        for index in self.chunks(self.shard.samples(self.num_samples)):
            yield index, self.get(index)

    def put(self, index: Tensor, rows: Tensor) -> None:
        """Write rows outside of batches, which all processes that keep them write alike, so that none are exchanged.

        Args:
            index: int64 (M,), each sample once.
            rows: (M, *shape), of any floating-point type and device.
        """
        for name, column in self.format.encode(rows).items():
            kept = self.columns[name]
            kept.index_copy_(0, self.shard.places(index.to(kept.device)), column.to(kept))

    def to(self, device: torch.device | str) -> Self:
        """Move the store, unless a file has it; returns itself."""
        if self.folder is not None:
            return self
        self.columns = {name: column.to(device) for name, column in self.columns.items()}
        self._touched, self._writer = self._touched.to(device), self._writer.to(device)
        return self

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
    def restored(cls, state: dict[str, Any]) -> Self:
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
        kept, shard = len(self.columns["values"]), Shard.of(storage)
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
        if (len(state["values"]), saved.shape) != (self.num_samples, self.format.shape):
            raise NoisyLabelError(
                f"The saved store has shape {(len(state['values']), *saved.shape)} (samples, ...), this run needs "
                f"{(self.num_samples, *self.format.shape)}: resume with the data set that wrote the checkpoint."
            )
        check_same_format(saved, self.format)
        for name, column in self.columns.items():
            column.copy_(self.shard.of_all(state[name]))
        self._writer.copy_(self.shard.of_all(state["writer"]))
        self._touched.zero_()


def check_same_format(saved: RowFormat, wanted: RowFormat) -> None:
    """Refuse rows that are kept in another way, which would round, or lose, what was written.

    Raises:
        NoisyLabelError: They are.
    """
    if saved != wanted:
        raise NoisyLabelError(
            f"The checkpoint's rows and those of this run are kept in two ways, {saved} and {wanted}: resume "
            "with the `storage` that wrote it."
        )
