"""What has to hold of logits and labels before anything is written about their samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.checks import check_labels
from lightning_noisy.data.batch import Batch
from lightning_noisy.state import RunState

_UNSEEN = -1
_NEAR_ONE = 1e-3


class BatchCheck:
    """Holds the labels at a criterion to their range and to their samples, and logits to be finite.

    The labels of the training set say which ones belong to an index. Where nobody knows them, those that come first
    are learned, saved and merged over processes.

    Args:
        run: The run.
        name: The criterion's name.
    """

    def __init__(self, run: RunState, name: str) -> None:
        self._run = run
        self._name = name
        self._labels: Tensor | None = None
        self._looked = False

    def __call__(self, batch: Batch, index: Tensor, logits: Tensor, given: Tensor, of_samples: bool) -> Tensor:
        """Check a call.

        Args:
            batch: The batch.
            index: Its samples, int64 (B,).
            logits: Logits (B, K).
            given: Labels (B,).
            of_samples: Whether the labels have to be those of the samples.

        Returns:
            The index, of which nothing is read outside the stores, whatever it held.

        Raises:
            NoisyLabelError: Something does not hold; on an accelerator at the next pause.
        """
        num_classes, place = logits.shape[1], f"epoch {batch.epoch}, batch {batch.batch_idx}"
        training_set = self._run.training_set
        assert training_set is not None
        kept = index.clamp(0, training_set.num_samples - 1)
        inside, finite = (given >= 0) & (given < num_classes), logits.isfinite().all(dim=1)
        expected = self._expected(kept, given, num_classes) if of_samples else given
        right, probabilities = ((kept == index) & inside & finite & (expected == given)).all(), None
        if not self._looked:  # once tells
            self._looked, probabilities = True, _are_probabilities(logits)
            right = right & ~probabilities

        def problem() -> str:
            if not (kept == index).all():
                return self._elsewhere(index, training_set.num_samples)
            if not inside.all():
                return self._outside(given, num_classes)
            if probabilities is not None and probabilities:
                return self._probabilities()
            return (
                self._not_finite(index[~finite], place)
                if not finite.all()
                else self._others(index, expected, given, place)
            )

        self._run.checks.require(right, problem)
        return kept

    def _expected(self, index: Tensor, given: Tensor, num_classes: int) -> Tensor:
        """The labels of the samples, as far as they are known; those that come now of the others."""
        known = self._run.labels
        if known is None:
            seen = self._run.learned_labels.store(self._name, (), _UNSEEN, torch.int64, given.device)
            labels = seen.get(index)
            return seen.update(index, torch.where(labels == _UNSEEN, given, labels))
        if self._labels is None or self._labels.device != given.device:
            check_labels(known, num_classes, "the training labels")
            self._labels = known.to(given.device)
        return self._labels[index]

    def _elsewhere(self, index: Tensor, num_samples: int) -> str:
        return (
            f"Expected indices in [0, {num_samples}), but the batch has {int(index.min())} to {int(index.max())}: wrap "
            "the set that the loader reads in `IndexedDataset`; a part of it is a "
            "`Subset(IndexedDataset(train_set), ...)`, or a Subset that is wrapped."
        )

    def _outside(self, given: Tensor, num_classes: int) -> str:
        return (
            f"Expected labels in [0, {num_classes}) at `{self._name}`, but the batch has {int(given.min())} to "
            f"{int(given.max())}."
        )

    def _probabilities(self) -> str:
        return (
            f"`{self._name}` gets probabilities, and whoever looks at it would take their softmax again: call it with "
            "logits, or with logarithms of probabilities."
        )

    def _not_finite(self, samples: Tensor, place: str) -> str:
        return (
            f"The logits are not finite in {place}, samples {samples.tolist()[:8]}: lower the learning rate or look at "
            "these inputs."
        )

    def _others(self, index: Tensor, expected: Tensor, given: Tensor, place: str) -> str:
        other = expected != given
        sample, label, came = (int(values[other][0]) for values in (index, expected, given))
        return (
            f"The labels at `{self._name}` are not those of the samples that the index names ({int(other.sum())} of "
            f"{len(given)} in {place}: sample {sample} has label {label}, but {came} came): keep the order of the "
            "batch up to the criterion, or say by `index_key` where its index is; labels that change on purpose need "
            "`check_labels=False`."
        )


def _are_probabilities(logits: Tensor) -> Tensor:
    return (logits >= 0).all() & ((logits.sum(dim=1) - 1).abs() < _NEAR_ONE).all()
