"""What identifies a training set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from lightning_noisy.data.indexed import IndexedDataset, indexed_set, inside_subsets, known_labels, positions_in
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash
from lightning_noisy.trainer_access import named_loaders


@dataclass(frozen=True)
class TrainingSet:
    """What identifies a training set: state of one must not be used with another."""

    num_samples: int
    """Samples N."""

    labels_hash: str | None = None
    """SHA-256 of the given labels, None where they cannot be read without loading every sample."""

    part_hash: str | None = None
    """SHA-256 of the positions that a ``Subset`` takes, None of another set."""

    @classmethod
    def of(cls, dataset: Any) -> TrainingSet:
        """Identify a map-style data set: length, labels where they are known, and of which rows it is a part."""
        wrapped = dataset.dataset if isinstance(dataset, IndexedDataset) else dataset
        labels, part = known_labels(dataset), positions_in(wrapped, inside_subsets(wrapped))
        return cls(len(dataset), *(None if numbers is None else labels_hash(numbers) for numbers in (labels, part)))

    def difference(self, earlier: TrainingSet) -> str | None:
        """How an earlier set was another one, in words; None where it was the same as far as one can know."""
        if earlier.num_samples != self.num_samples:
            return f"{earlier.num_samples} training samples, this run has {self.num_samples}"
        if None not in (earlier.labels_hash, self.labels_hash) and earlier.labels_hash != self.labels_hash:
            return "other given labels (their hash differs)"
        if earlier.part_hash != self.part_hash:
            return "another part of the data (other indices of a `Subset`)"
        return None

    def check_state_of(self, earlier: TrainingSet) -> None:
        """Refuse state that was written for another training set.

        Raises:
            NoisyLabelError: Another number of samples, other labels or another part.
        """
        other = self.difference(earlier)
        if other is not None:
            raise NoisyLabelError(
                f"The checkpoint's per-sample state belongs to {other}: resume with the data, noise and seed that "
                "wrote it, or start afresh without `ckpt_path`."
            )

    def check_epoch_of(self, earlier: TrainingSet, epoch: int) -> None:
        """Refuse an epoch whose loaders read another training set than those before.

        Raises:
            NoisyLabelError: They do.
        """
        other = self.difference(earlier)
        if other is not None:
            raise NoisyLabelError(
                f"The loaders of epoch {epoch} read another set, but per-sample state belongs to {other}: wrap the "
                "whole training set in `IndexedDataset` once, and give each epoch's loader a Subset of it."
            )


def training_set_of(trainer: Trainer, owner: str, only: Collection[str] = ()) -> tuple[TrainingSet, Any]:
    """The set that a Trainer's training loaders index, see :func:`common_training_set`.

    Args:
        trainer: The Trainer.
        owner: Who needs it, for messages.
        only: Names of the loaders that count; those that are none do not, and without any all loaders do.
    """
    named = {".".join(map(str, path)): loader for path, loader in named_loaders(trainer).items()}
    chosen = [loader for name, loader in named.items() if name in only] or list(named.values())
    return common_training_set([getattr(loader, "dataset", None) for loader in chosen], owner)


def common_training_set(datasets: Sequence[Any], owner: str) -> tuple[TrainingSet, Any]:
    """The one set that all training loaders index: what identifies it, and the set itself.

    Args:
        datasets: The loaders' data sets. Of a ``Subset`` of an indexed set the set inside gives the indices, and of
            several Subsets of one set that set does.
        owner: Who needs it, for messages.

    Raises:
        NoisyLabelError: There is none, one that cannot be counted, or several different ones.
    """
    inside = [inside_subsets(dataset) for dataset in datasets]
    parts_of_one = len(inside) > 1 and all(one is inside[0] for one in inside)
    roots = inside[:1] if parts_of_one else [indexed_set(dataset) for dataset in datasets]
    if not roots or any(not hasattr(root, "__len__") or not hasattr(root, "__getitem__") for root in roots):
        names = ", ".join(type(dataset).__name__ for dataset in datasets) or "none"
        raise NoisyLabelError(
            f"{owner} keeps state for each training sample and needs DataLoaders over a map-style data set, but the "
            f"training loaders read: {names}. Samples that come in a stream have no index: give a data set with "
            "`__len__` and `__getitem__`, wrapped in `IndexedDataset`."
        )
    sets = [TrainingSet.of(root) for root in roots]
    if any(one != sets[0] for one in sets):
        counts = ", ".join(str(one.num_samples) for one in sets)
        raise NoisyLabelError(
            f"The training loaders index different sets ({counts} samples), but {owner} keeps one row for each sample "
            "of one set: wrap the whole training set in `IndexedDataset` once, and give each loader a Subset or a "
            "sampler of it."
        )
    return sets[0], roots[0]
