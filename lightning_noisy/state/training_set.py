"""What identifies a training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_noisy.data.indexed import indexed_set, known_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash
from lightning_noisy.trainer_access import training_loaders


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

    def check_same(self, saved: TrainingSet) -> None:
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
            f"The checkpoint's per-sample state belongs to {what}: resume with the data, noise and seed that wrote it, "
            "or start afresh without `ckpt_path`."
        )


def training_set_of(trainer: Trainer, owner: str) -> tuple[TrainingSet, Tensor | None]:
    """The set that a Trainer's training loaders index, see :func:`common_training_set`."""
    return common_training_set([getattr(loader, "dataset", None) for loader in training_loaders(trainer)], owner)


def common_training_set(datasets: Sequence[Any], owner: str) -> tuple[TrainingSet, Tensor | None]:
    """The one set that all training loaders index, and its labels where they are known.

    Args:
        datasets: The loaders' data sets. Of a ``Subset`` of an indexed set, the set inside gives the indices.
        owner: Who needs it, for messages.

    Raises:
        NoisyLabelError: There is none, one that cannot be counted, or several different ones.
    """
    roots = [indexed_set(dataset) for dataset in datasets]
    if not roots or any(not hasattr(root, "__len__") or not hasattr(root, "__getitem__") for root in roots):
        names = ", ".join(type(dataset).__name__ for dataset in datasets) or "none"
        raise NoisyLabelError(
            f"{owner} keeps state for each training sample and needs DataLoaders over a map-style data set, but the "
            f"training loaders read: {names}."
        )
    sets = [TrainingSet.of(root) for root in roots]
    if any(one != sets[0] for one in sets):
        counts = ", ".join(str(one.num_samples) for one in sets)
        raise NoisyLabelError(
            f"The training loaders index different sets ({counts} samples), but {owner} keeps one row for each sample "
            "of one set: wrap the whole training set in `IndexedDataset` once, and give each loader a Subset or a "
            "sampler of it."
        )
    return sets[0], known_labels(roots[0])
