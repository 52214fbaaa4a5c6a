"""Stores keyed by dataset index."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.collectives import communication_device, process_count, process_rank
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.state.open_batch import OpenBatch

_CHUNK_BYTES = 2**24
_NOBODY = -1

_Overwritten = tuple[Tensor, Tensor, Tensor]
"""A tensor of a store, rows of it, and what they were before."""


class SampleStore:
    """A per-sample store: row ``i`` belongs to sample ``i`` of the training set.

    It is neither a module nor a buffer, so that DDP does not overwrite it with rank 0's. Nothing here reads a value
    back to the host and nothing touches the whole store in a training step.

    Args:
        num_samples: Rows N.
        shape: Shape of a row; ``()`` stores one number a sample.
        fill: Initial value of every entry.
        dtype: Storage type; arithmetic of floating-point stores is float32. float16 halves the memory of stores of
            probabilities; bfloat16 is refused, since its running means are wrong by percents.
        device: Where the store lives.

    Raises:
        NoisyLabelError: ``num_samples`` < 1 or ``dtype`` is bfloat16.
    """

    def __init__(
        self,
        num_samples: int,
        shape: tuple[int, ...] = (),
        fill: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_argument(num_samples >= 1, "num_samples", "at least 1", num_samples)
        check_argument(dtype != torch.bfloat16, "dtype", "float32, float16 or an integer type", dtype)
        self.values = torch.full((num_samples, *shape), fill, dtype=dtype, device=device)
        self.in_run = False
        """Whether a run owns it: saves it, and merges it over processes."""
        self._touched = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self._writer = torch.full((num_samples,), _NOBODY, dtype=torch.int16, device=device)
        self.open_batch = OpenBatch()
        """That of the run which owns it."""
        self._overwritten: list[_Overwritten] = []
        self._written_in: object | None = None

    @property
    def num_samples(self) -> int:
        """Rows N."""
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return tuple(self.values.shape[1:])

    def to(self, device: torch.device | str) -> SampleStore:
        """Move the store; returns itself."""
        self.values, self._touched = self.values.to(device), self._touched.to(device)
        self._writer = self._writer.to(device)
        return self

    def get(self, index: Tensor) -> Tensor:
        """Copies of the rows ``index`` (B,), on the index's device; float16 rows come as float32."""
        return self._compute(self.values.index_select(0, index.to(self.values.device))).to(index.device)

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
        if self.open_batch.repeated:
            return self.get(index)
        rows = index.to(self.values.device)
        written = values.detach().to(self.values)[first_occurrence(rows)]
        if self.open_batch.now is not None:
            if self._written_in is not self.open_batch.now:
                self._written_in, self._overwritten = self.open_batch.now, []
            self._overwritten += [(column, rows, column.index_select(0, rows)) for column in self._columns()]
        if _alone():
            self._touched.index_fill_(0, rows, True)
        else:
            written = self._claim(rows, written)
        self.values.index_copy_(0, rows, written)
        return self._compute(written).to(index.device)

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

    def take_back(self) -> None:
        """The open batch is given up: the rows that it has written are again what they were."""
        for column, rows, before in reversed(self._changes()):
            column.index_copy_(0, rows, before)
        self._written_in = None

    def synchronize(self, within_epoch: bool = False) -> None:
        """Give every process the rows that any process has written since the last call.

        A collective: all processes must enter. Rows travel in chunks of fixed size. Where two processes have written
        the same sample (the padding of a distributed sampler) all keep the same one of the two rows, so that it counts
        once.

        Args:
            within_epoch: The epoch goes on: a row that came from another process stays as it is until its end, since
                what may still come for it is padding.
        """
        if process_count() > 1:
            self._exchange(self._touched.nonzero().squeeze(1))
        self._touched.zero_()
        if not within_epoch:
            self._writer.fill_(_NOBODY)

    def state_dict(self) -> dict[str, Any]:
        """The store as a plain dict, inside a batch as it was before. Never a collective."""
        return {"values": self._before(self.values).cpu(), "writer": self._before(self._writer).cpu()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> SampleStore:
        """A store of the shape and type of a saved one, with its rows, on the CPU."""
        values = state["values"]
        store = cls(values.shape[0], tuple(values.shape[1:]), dtype=values.dtype)
        store.load_state_dict(state)
        return store

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved store.

        Raises:
            NoisyLabelError: It has another number of samples or another row shape.
        """
        saved = state["values"]
        if saved.shape != self.values.shape:
            raise NoisyLabelError(
                f"The saved store has shape {tuple(saved.shape)} (samples, ...), this run needs "
                f"{tuple(self.values.shape)}: resume with the data set that wrote the checkpoint."
            )
        self.values = saved.to(self.values, copy=True)
        self._writer = state["writer"].to(self._writer, copy=True)
        self._touched.zero_()

    def _claim(self, rows: Tensor, written: Tensor) -> Tensor:
        """Mark rows as this process's, but for those that another one has written in this epoch, which stay."""
        writer, me = self._writer[rows], process_rank()
        mine = (writer == _NOBODY) | (writer == me)
        self._writer.index_copy_(0, rows, writer.masked_fill(mine, me))
        self._touched.index_copy_(0, rows, self._touched[rows] | mine)
        return torch.where(mine.reshape(-1, *[1] * len(self.shape)), written, self.values[rows])

    def _columns(self) -> tuple[Tensor, ...]:
        """What an update changes and a checkpoint holds."""
        return (self.values,) if _alone() else (self.values, self._writer, self._touched)

    def _changes(self) -> list[_Overwritten]:
        """Columns, rows and what stood there before the open batch."""
        written = self._written_in is not None and self._written_in is self.open_batch.now
        return self._overwritten if written else []

    def _before(self, column: Tensor) -> Tensor:
        changes = [(rows, before) for changed, rows, before in self._changes() if changed is column]
        if changes:
            column = column.clone()
        for rows, before in reversed(changes):
            column.index_copy_(0, rows, before)
        return column

    def _check_rows(self, index: Tensor, values: Tensor) -> None:
        wanted = (len(index), *self.shape)
        if values.shape != wanted:
            check_argument(False, "values", f"rows of shape {wanted}", tuple(values.shape))

    def _compute(self, rows: Tensor) -> Tensor:
        return rows.float() if rows.dtype == torch.float16 else rows

    def _exchange(self, mine: Tensor) -> None:
        device = communication_device()
        longest = torch.tensor(mine.numel(), device=device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        row_bytes = self.values[0].numel() * self.values.element_size()
        chunk = max(1, _CHUNK_BYTES // max(1, row_bytes))
        for start in range(0, int(longest), chunk):
            size = min(chunk, int(longest) - start)
            rows = mine[start : start + size]
            index = torch.full((size,), -1, dtype=torch.int64, device=device)
            values = torch.zeros((size, *self.shape), dtype=self.values.dtype, device=device)
            index[: rows.numel()] = rows.to(device)
            values[: rows.numel()] = self.values[rows].to(device)
            for sender, (sent_index, sent_values) in enumerate(zip(_gather(index), _gather(values), strict=True)):
                sent = sent_index >= 0
                self._writer[sent_index[sent].to(self.values.device)] = sender
                self.values[sent_index[sent].to(self.values.device)] = sent_values[sent].to(self.values.device)


def _alone() -> bool:
    """Asked in each batch, so without a call of another file."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _gather(tensor: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(gathered, tensor)
    return gathered


def first_occurrence(index: Tensor) -> Tensor:
    """For each entry of ``index`` (B,) the position at which its value stands first, without a host round trip."""
    ordered, order = index.sort(stable=True)
    return order[torch.searchsorted(ordered, index)]
