"""What one member of a run keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.epoch_sums import EpochSums
from lightning_noisy.state.open_batch import OpenBatch
from lightning_noisy.state.row_format import format_of, row_bytes
from lightning_noisy.state.sample_store import SampleStore
from lightning_noisy.state.saved_rows import check_same_format
from lightning_noisy.state.shard import Shard
from lightning_noisy.storage import PLAIN, Storage

_LARGEST_SHARE_OF_FREE_MEMORY = 0.25


class Stateful(Protocol):
    """State that is saved as plain values and can be forgotten. Inside a batch, what is saved is that before it."""

    def enter_batch(self) -> None:
        """A training batch begins."""
        ...

    def end_batch(self) -> None:
        """It has ended, and counts."""
        ...

    def leave_batch(self) -> None:
        """It was given up: be as before it."""
        ...

    def reset(self) -> None:
        """Begin without a past."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved."""
        ...


class Section:
    """What one member of a run (a callback, a loss, the module) keeps: stores, sums of an epoch, metrics of each.

    The member makes it and writes into it; :class:`~lightning_noisy.state.RunState`, to which it is added at ``setup``,
    begins, shares, closes, saves and loads it.

    Args:
        owner: The member's name, for messages.
        key: What tells it apart from the other sections of a run; None is ``owner``.
        metrics: Gives the metrics of the epoch that ends, from stores that are equal on all processes, and may forget
            what they were made of. All processes call it, so it may be a collective.
        per_sample: Whether it has stores, so that the training set has to be one that can be counted.
        parts: Further state that is saved with it, by name.
        storage: How its stores keep their rows.
        storages: The same for single stores, by their names.
    """

    def __init__(
        self,
        owner: str,
        key: str | None = None,
        metrics: Callable[[], dict[str, float]] | None = None,
        per_sample: bool = True,
        parts: Mapping[str, Stateful] | None = None,
        storage: Storage = PLAIN,
        storages: Mapping[str, Storage] | None = None,
    ) -> None:
        self.owner = owner
        self.key = owner if key is None else key
        self.per_sample = per_sample
        self.storage = storage
        """How stores keep their rows."""
        self.storages = dict(storages or {})
        """The same for single stores, by their names."""
        self.stores: dict[str, SampleStore] = {}
        """A store for each name, with a row for each training sample."""
        self.sums = EpochSums()
        """Sums over the current epoch."""
        self.history: dict[int, dict[str, float]] = {}
        """Metrics of each finished epoch: epoch -> name -> value."""
        self.num_samples: int | None = None
        """Samples N of the training set; None before training and where nobody counts them."""
        self.device = torch.device("cpu")
        """Where training runs."""
        self._metrics = metrics
        self.parts = dict(parts or {})
        """Further state, by name."""
        self.open_batch = OpenBatch()
        """That of the run which owns it."""

    def store(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        fill: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SampleStore:
        """The store ``name``, made now if it is not there yet.

        Raises:
            NoisyLabelError: A loaded store has another row shape or storage, or training has not begun.
        """
        if self.num_samples is None:
            raise NoisyLabelError(f"{self.owner} has no training set yet: its stores exist from `on_train_start` on.")
        storage = self.storage_of(name)
        if name not in self.stores:
            size = row_bytes(format_of(shape, dtype, storage)) * self.num_samples // Shard.of(storage).count
            home = _home(size, torch.device(device))
            self.stores[name] = SampleStore(self.num_samples, shape, fill, dtype, home, storage)
            self.stores[name].undo.open_batch = self.open_batch
        found = self.stores[name]
        if found.in_run:
            return found
        found.in_run = True
        if found.shape != shape:
            raise NoisyLabelError(
                f"The checkpoint's store `{name}` of {self.owner} has rows of shape {found.shape}, this run needs "
                f"{shape}: resume with the number of classes that wrote it."
            )
        check_same_format(found.format, format_of(shape, dtype, storage))
        return found

    def storage_of(self, name: str) -> Storage:
        """How the store ``name`` keeps its rows."""
        return self.storages.get(name, self.storage)

    def begin(self, num_samples: int | None, device: torch.device) -> None:
        """Training starts on a set of ``num_samples``; stores go to the accelerator where they fit."""
        self.num_samples, self.device = num_samples, device
        for name, store in self.stores.items():
            store.settle(self.storage_of(name))
            store.to(_home(store.nbytes, device))

    def follow(self, open_batch: OpenBatch) -> None:
        """Know which training batch is open: what it changes can be taken back until it has ended."""
        self.open_batch = self.sums.open_batch = open_batch
        for store in self.stores.values():
            store.undo.open_batch = open_batch

    def take_back(self) -> None:
        """The open batch is given up: everything is again as before it."""
        for store in self.stores.values():
            store.undo.take_back()
        self.sums.take_back()
        for part in self.parts.values():
            part.leave_batch()

    def share(self) -> None:
        """Bring what all processes know to rank 0, which writes checkpoints: a collective inside an epoch."""
        for store in self.stores.values():
            store.synchronize(within_epoch=True)
        self.sums.merge()

    def close(self, epoch: int) -> dict[str, float]:
        """End an epoch: its metrics, also noted in :attr:`history`. A collective."""
        for store in self.stores.values():
            store.synchronize()
        metrics = {} if self._metrics is None else self._metrics()
        self.sums.reset()
        if metrics:
            self.history[epoch] = metrics
        return metrics

    def reset(self) -> None:
        """Begin without a past."""
        self.stores, self.history = {}, {}
        self.sums.reset()
        for part in self.parts.values():
            part.reset()

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values. Never a collective."""
        return {
            "stores": {name: store.state_dict() for name, store in self.stores.items()},
            "sums": self.sums.state_dict(),
            "history": {epoch: dict(seen) for epoch, seen in self.history.items()},
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved, rows without a copy; whether it belongs to the training set is asked later."""
        self.stores = {name: SampleStore.restored(saved) for name, saved in state["stores"].items()}
        self.follow(self.open_batch)
        self.sums.load_state_dict(state["sums"])
        self.history = {epoch: dict(seen) for epoch, seen in state["history"].items()}
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])


def say_what_is_missing(dropped: Collection[str], new: Collection[str]) -> None:
    """Say which sections of a checkpoint a run has not, and which of its own the checkpoint has not."""
    if dropped:
        rank_zero_warn(f"The checkpoint's state of {', '.join(dropped)} is dropped: this run has no such part.")
    if new:
        rank_zero_warn(f"The checkpoint has no state of {', '.join(sorted(new))}, which begins without a past.")


def _home(size: int, device: torch.device) -> torch.device:
    """The accelerator when a store of ``size`` bytes fits in a quarter of its free memory, else the CPU."""
    if device.type == "cuda" and size > _LARGEST_SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device
