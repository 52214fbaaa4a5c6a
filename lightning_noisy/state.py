"""Per-sample state: tables keyed by dataset index that survive a resume and a second process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.noise import labels_hash
from lightning_noisy.processes import communication_device, process_count, process_rank

_CHUNK_BYTES = 2**24
_NOBODY = -1
_LARGEST_SHARE_OF_FREE_MEMORY = 0.25


class SampleStore:
    """A per-sample table: row ``i`` belongs to sample ``i`` of the training set.

    It is neither a module nor a buffer, so that DDP does not overwrite it with rank 0's. Nothing here reads a value
    back to the host and nothing touches the whole table in a training step.

    Args:
        num_samples: Rows N.
        shape: Shape of a row; ``()`` stores one number a sample.
        fill: Initial value of every entry.
        dtype: Storage type; arithmetic of floating-point tables is float32. float16 halves the memory of tables of
            probabilities; bfloat16 is refused, since its running means are wrong by percents.
        device: Where the table lives.

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
        self._touched = torch.zeros(num_samples, dtype=torch.bool, device=device)
        self._writer = torch.full((num_samples,), _NOBODY, dtype=torch.int16, device=device)

    @property
    def num_samples(self) -> int:
        """Rows N."""
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return tuple(self.values.shape[1:])

    def to(self, device: torch.device | str) -> SampleStore:
        """Move the table; returns itself."""
        self.values, self._touched = self.values.to(device), self._touched.to(device)
        self._writer = self._writer.to(device)
        return self

    def get(self, index: Tensor) -> Tensor:
        """Copies of the rows ``index`` (B,), on the index's device; float16 rows come as float32."""
        return self._compute(self.values.index_select(0, index.to(self.values.device))).to(index.device)

    def update(self, index: Tensor, values: Tensor) -> Tensor:
        """Write rows; of a sample that stands twice in ``index`` the first row counts.

        Args:
            index: int64 (B,).
            values: (B, *shape), of any floating-point type and device.

        Returns:
            The rows as stored, in the order of ``index`` and on its device.

        Raises:
            NoisyLabelError: ``values`` has another shape.
        """
        self._check_rows(index, values)
        rows = index.to(self.values.device)
        written = values.detach().to(self.values)[first_occurrence(rows)]
        if process_count() == 1:
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
        """The table as a plain dict. Never a collective."""
        return {"values": self.values.cpu(), "writer": self._writer.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved table.

        Raises:
            NoisyLabelError: It has another number of samples or another row shape.
        """
        saved = state["values"]
        if saved.shape != self.values.shape:
            raise NoisyLabelError(
                f"The saved table has shape {tuple(saved.shape)} (samples, ...), this run needs "
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

    def _check_rows(self, index: Tensor, values: Tensor) -> None:
        wanted = (len(index), *self.shape)
        check_argument(values.shape == wanted, "values", f"rows of shape {wanted}", tuple(values.shape))

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


def _gather(tensor: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(gathered, tensor)
    return gathered


def first_occurrence(index: Tensor) -> Tensor:
    """For each entry of ``index`` (B,) the position at which its value stands first, without a host round trip."""
    ordered, order = index.sort(stable=True)
    return order[torch.searchsorted(ordered, index)]


@dataclass(frozen=True)
class TrainingSet:
    """What identifies a training set: state of one must not be used with another."""

    num_samples: int
    """Samples N."""

    labels_hash: str | None = None
    """SHA-256 of the given labels, None where they cannot be read without loading every sample."""

    @classmethod
    def of(cls, dataset: Any) -> TrainingSet:
        """Identify a map-style data set: its length, and the hash of its labels where they are known."""
        labels = known_labels(dataset)
        return cls(len(dataset), None if labels is None else labels_hash(labels))

    def check_same(self, saved: TrainingSet, owner: str) -> None:
        """Refuse state that was written for another training set.

        Raises:
            NoisyLabelError: Another number of samples, or other labels.
        """
        if saved.num_samples != self.num_samples:
            what = f"{saved.num_samples} training samples, this run has {self.num_samples}"
        elif None not in (saved.labels_hash, self.labels_hash) and saved.labels_hash != self.labels_hash:
            what = "other given labels (their hash differs)"
        else:
            return
        raise NoisyLabelError(
            f"The checkpoint's state of {owner} belongs to {what}: resume with the data, noise and seed that wrote it, "
            "or start afresh without `ckpt_path`."
        )


class StoreGroup:
    """The tables of one owner (a callback, a loss) and the training set they belong to.

    Tables are made when the first batch shows their width. State that a checkpoint brought is compared with the
    training set when training starts, never in validation, test or prediction.

    Args:
        owner: Name for messages.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.tables: dict[str, SampleStore] = {}
        self.training_set: TrainingSet | None = None

    def begin(self, training_set: TrainingSet, fresh: bool, device: torch.device) -> None:
        """Start training on ``training_set``.

        Args:
            training_set: The set of this run.
            fresh: The run starts at step 0: what an earlier run or a test of the same object left is dropped.
            device: The accelerator; tables go there when they fit.

        Raises:
            NoisyLabelError: The state belongs to another training set.
        """
        if fresh:
            self.tables, self.training_set = {}, None
        if self.training_set is not None:
            training_set.check_same(self.training_set, self.owner)
        self.training_set = training_set
        for table in self.tables.values():
            table.to(_home(table.values.nbytes, device))

    def table(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        fill: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SampleStore:
        """The table ``name``, made now if it is not there yet.

        Raises:
            NoisyLabelError: A loaded table has another row shape.
        """
        if self.training_set is None:
            raise NoisyLabelError(f"{self.owner} has no training set yet: its tables exist from `on_train_start` on.")
        if name not in self.tables:
            entries = self.training_set.num_samples * torch.Size(shape).numel()
            home = _home(entries * dtype.itemsize, torch.device(device))
            self.tables[name] = SampleStore(self.training_set.num_samples, shape, fill, dtype, home)
        found = self.tables[name]
        if found.shape != shape:
            raise NoisyLabelError(
                f"The checkpoint's table `{name}` of {self.owner} has rows of shape {found.shape}, this run needs "
                f"{shape}: resume with the number of classes that wrote it."
            )
        return found

    def synchronize(self, within_epoch: bool = False) -> None:
        """:meth:`SampleStore.synchronize` of every table, in the order in which they were made: a collective."""
        for table in self.tables.values():
            table.synchronize(within_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Tables and training set as plain values. Never a collective."""
        known = self.training_set
        return {
            "num_samples": known.num_samples if known else None,
            "labels_hash": known.labels_hash if known else None,
            "tables": {name: table.state_dict() for name, table in self.tables.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved tables; whether they belong is asked by :meth:`begin`."""
        self.tables, self.training_set = {}, None
        if state["num_samples"] is not None:
            self.training_set = TrainingSet(state["num_samples"], state["labels_hash"])
        for name, saved in state["tables"].items():
            values = saved["values"]
            self.tables[name] = SampleStore(values.shape[0], tuple(values.shape[1:]), dtype=values.dtype)
            self.tables[name].load_state_dict(saved)


class EpochSums:
    """Named sums over one epoch that survive a resume and are merged over processes.

    Lightning's own epoch means start again from zero when training resumes in the middle of an epoch. Sums are float64
    on the device of what is added; nothing is read back before :meth:`means`.
    """

    def __init__(self) -> None:
        self.epoch: int | None = None
        """The epoch the sums belong to, None while nothing has been added."""
        self._sums: dict[str, Tensor] = {}
        self._weight: Tensor | None = None

    def add(self, epoch: int, weight: int, **means: Tensor) -> None:
        """Add the means of one batch.

        Args:
            epoch: Epoch number, from 0.
            weight: Number of samples B.
            **means: Batch means, scalar tensors.
        """
        self.epoch = epoch
        device = next(iter(means.values())).device
        if self._weight is None:
            self._weight = torch.zeros((), dtype=torch.float64, device=device)
        self._weight = self._weight.to(device) + weight
        for name, mean in means.items():
            total = self._sums.get(name, torch.zeros((), dtype=torch.float64)).to(device)
            self._sums[name] = total + mean.detach().double() * weight

    def merge(self) -> None:
        """Add up the sums of all processes on rank 0: a collective. The others start again from zero."""
        if process_count() == 1 or self._weight is None:
            return
        device = communication_device()
        packed = torch.stack([self._weight, *self._sums.values()]).to(device)
        dist.all_reduce(packed)
        if process_rank() != 0:
            packed.zero_()
        self._weight, *sums = packed.unbind()
        self._sums = dict(zip(self._sums, sums, strict=True))

    def means(self) -> dict[str, float]:
        """The means over all processes, equal on each: a collective. Empty when nothing has been added."""
        if self._weight is None:
            return {}
        packed = torch.stack([self._weight, *self._sums.values()])
        if process_count() > 1:
            packed = packed.to(communication_device())
            dist.all_reduce(packed)
        weight, *sums = packed.tolist()
        return {name: total / weight for name, total in zip(self._sums, sums, strict=True)}

    def reset(self) -> None:
        """Forget everything."""
        self.epoch, self._sums, self._weight = None, {}, None

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain values. Never a collective."""
        return {
            "epoch": self.epoch,
            "weight": None if self._weight is None else self._weight.cpu(),
            "sums": {name: total.cpu() for name, total in self._sums.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved sums. They are rank 0's, so the other ranks go on from zero."""
        share = 1.0 if process_rank() == 0 else 0.0
        self.epoch = state["epoch"]
        self._weight = None if state["weight"] is None else state["weight"] * share
        self._sums = {name: total * share for name, total in state["sums"].items()}


def _home(size: int, device: torch.device) -> torch.device:
    """The accelerator when a table of ``size`` bytes fits in a quarter of its free memory, else the CPU."""
    if device.type == "cuda" and size > _LARGEST_SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device
