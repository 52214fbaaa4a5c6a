"""The tables of one owner, and the training set they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.noise import labels_hash
from lightning_noisy.state.sample_store import SampleStore

_LARGEST_SHARE_OF_FREE_MEMORY = 0.25


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


def _home(size: int, device: torch.device) -> torch.device:
    """The accelerator when a table of ``size`` bytes fits in a quarter of its free memory, else the CPU."""
    if device.type == "cuda" and size > _LARGEST_SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device
