"""Samples that are visited several times in an epoch, twice in a batch, or not at all: what memories make of it.

Each loss is compared with a recursion in numpy that walks through the batches sample by sample. Of a sample that stands
twice in a batch the first entry writes, and all entries of the batch read what is there before or after, as their
docstrings say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from lightning_noisy.callbacks import JointOptimizationLabels
from lightning_noisy.functional.losses import draw_negatives
from lightning_noisy.losses import (
    EarlyLearningRegularization,
    NegativeLearning,
    PencilLoss,
    SelectiveNegativeLearning,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.targets import TargetCall
from tests.losses.numpy_oracle import CLASSES, SAMPLES, Array, attach, rows_of, softmax

EPOCHS = 12
LABELS = np.array([0, 1, 3, 2, 2, 0, 1])


class Batch(NamedTuple):
    epoch: int
    index: list[int]
    logits: Array

    @property
    def labels(self) -> Array:
        return LABELS[self.index]

    @property
    def p(self) -> Array:
        return softmax(self.logits)

    @property
    def p_label(self) -> Array:
        return self.p[np.arange(len(self.index)), self.labels]

    def firsts(self) -> Iterator[tuple[int, int]]:
        """Sample and row of the first entry of each sample."""
        for sample in dict.fromkeys(self.index):
            yield sample, self.index.index(sample)


def schedule(seed: int) -> list[Batch]:
    """Batches drawn with replacement from a part of the samples, another one in each epoch."""
    rng = np.random.default_rng(seed)
    batches = []
    for epoch in range(EPOCHS):
        there = rng.choice(SAMPLES, size=rng.integers(2, SAMPLES), replace=False)
        for size in rng.integers(1, 6, size=rng.integers(1, 4)):
            index = rng.choice(there, size=size).tolist()
            batches.append(Batch(epoch, index, 2 * rng.standard_normal((size, CLASSES))))
    return batches


def values_of(loss: object, batch: Batch) -> Array:
    context = {"index": torch.tensor(batch.index), "epoch": batch.epoch}
    passed = {name: context[name] for name in loss.requires}
    return loss(torch.tensor(batch.logits), torch.tensor(batch.labels), **passed).detach().numpy()


def test_the_schedule_has_what_is_asked_for() -> None:
    for seed in range(3):
        batches = schedule(seed)
        visits = [(batch.epoch, sample) for batch in batches for sample in set(batch.index)]
        assert len(visits) > len(set(visits))
        assert any(len(set(batch.index)) < len(batch.index) for batch in batches)
        assert any(len({epoch for epoch, sample in visits if sample == one}) < EPOCHS - 4 for one in range(SAMPLES))


several = pytest.mark.parametrize("seed", range(3))


@several
def test_early_learning_moves_at_each_visit(seed: int) -> None:
    loss, average = attach(EarlyLearningRegularization(3.0, 0.7, reduction="none")), np.zeros((SAMPLES, CLASSES))
    for batch in schedule(seed):
        clipped = np.clip(batch.p, 1e-4, 1 - 1e-4)
        for sample, row in batch.firsts():
            average[sample] = 0.7 * average[sample] + 0.3 * clipped[row] / clipped[row].sum()
        expected = -np.log(batch.p_label) + 3 * np.log(1 - (average[batch.index] * clipped).sum(1))
        np.testing.assert_allclose(values_of(loss, batch), expected, rtol=1e-9)
        np.testing.assert_allclose(rows_of(loss, "prediction"), average, rtol=1e-9)


@several
def test_self_adaptive_training_moves_at_each_visit(seed: int) -> None:
    loss, targets = attach(SelfAdaptiveTraining(2, 0.7, reduction="none")), np.eye(CLASSES)[LABELS]
    for batch in schedule(seed):
        expected = -np.log(batch.p_label)
        if batch.epoch >= 2:
            for sample, row in batch.firsts():
                targets[sample] = 0.7 * targets[sample] + 0.3 * batch.p[row]
            used = targets[batch.index]
            expected = used.max(1) / used.max(1).mean() * -(used * np.log(batch.p)).sum(1)
        np.testing.assert_allclose(values_of(loss, batch), expected, rtol=1e-9)


@several
def test_truncation_is_decided_at_each_visit(seed: int) -> None:
    q, k = 0.7, 0.3
    loss = attach(TruncatedGeneralizedCrossEntropy(q, k, warmup_epochs=2, every_n_epochs=2, reduction="none"))
    kept, counts = np.ones(SAMPLES), set()
    for batch in schedule(seed):
        if batch.epoch >= 2 and (batch.epoch + 1) % 2 == 0:
            for sample, row in batch.firsts():
                kept[sample] = batch.p_label[row] > k
        counts.add(kept.sum())
        expected = kept[batch.index] * ((1 - batch.p_label**q) / q - (1 - k**q) / q)
        np.testing.assert_allclose(values_of(loss, batch), expected, rtol=1e-9, atol=1e-12)
    assert len(counts) > 3


@several
def test_pencil_takes_a_step_at_each_visit(seed: int) -> None:
    rate, scale = 40.0, 2.0
    loss = PencilLoss(0.0, 0.0, rate, warmup_epochs=1, fixed_from_epoch=9, scale=scale, form="paper", reduction="none")
    attach(loss)
    label_logits = scale * np.eye(CLASSES)[LABELS]
    for batch in schedule(seed):
        d = softmax(label_logits[batch.index])
        expected = (batch.p * np.log(batch.p / d)).sum(1) if batch.epoch >= 1 else -np.log(batch.p_label)
        np.testing.assert_allclose(values_of(loss, batch), expected, rtol=1e-7, atol=1e-10)
        if 1 <= batch.epoch < 9:
            for sample, row in batch.firsts():
                label_logits[sample] -= rate / len(batch.index) * (d[row] - batch.p[row])
        moved = rows_of(loss, "label_logits") + scale * np.eye(CLASSES)[LABELS]
        np.testing.assert_allclose(moved, label_logits, rtol=1e-7, atol=1e-10)


class Window:
    """A dict of what was noted: sample -> epoch -> values."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.noted: dict[int, dict[int, Array]] = {sample: {} for sample in range(SAMPLES)}

    def mean(self, sample: int, epoch: int) -> Array | None:
        past = [values for e, values in self.noted[sample].items() if epoch - self.window <= e < epoch]
        return np.mean(past, axis=0) if past else None

    def note(self, batch: Batch, values: Array) -> None:
        for sample, row in batch.firsts():
            self.noted[sample][batch.epoch] = values[row]


@several
@pytest.mark.parametrize("window", [1, 2, 4])
def test_selective_learning_sees_the_epochs_before(window: int, seed: int) -> None:
    negative = attach(SelectiveNegativeLearning(2, threshold=0.3, window=window, seed=3, reduction="none"))
    positive = attach(SelectivePositiveLearning(0.3, window, reduction="none"))
    past, shares = Window(window), []
    for batch in schedule(seed):
        means = [past.mean(sample, batch.epoch) for sample in batch.index]
        kept = np.array([mean is None or mean > 0.3 for mean in means], dtype=float)
        shares.append(kept.mean())
        drawn = draw_negatives(
            torch.tensor(batch.labels), CLASSES, 2, 0x6E656761746976, 3, batch.epoch, torch.tensor(batch.index)
        )
        rest = 1 - batch.p[np.arange(len(kept))[:, None], drawn.numpy()]
        scale = kept * len(kept) / max(1, kept.sum())
        np.testing.assert_allclose(values_of(negative, batch), scale * -np.log(rest).sum(1), rtol=1e-9)
        np.testing.assert_allclose(values_of(positive, batch), scale * -np.log(batch.p_label), rtol=1e-9)
        past.note(batch, batch.p_label)
    assert {0.0, 1.0} <= set(shares)
    assert len(set(shares)) > 2


@several
def test_negatives_are_the_same_at_each_visit_of_an_epoch(seed: int) -> None:
    loss, met = NegativeLearning(1, seed=3, reduction="none"), {}
    for batch in schedule(seed):
        for row, value in enumerate(values_of(loss, batch)):
            rest = -np.log(1 - batch.p[row])
            (drawn,) = np.flatnonzero(np.isclose(rest, value, rtol=1e-9))
            assert met.setdefault((batch.epoch, batch.index[row]), drawn) == drawn
    assert len(set(met.values())) == CLASSES


@several
@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.parametrize(("warmup", "window"), [(1, 1), (2, 4), (4, 2)])
def test_joint_optimization_labels_are_those_of_the_epochs_before(
    warmup: int, window: int, labels: str, seed: int
) -> None:
    callback, past = JointOptimizationLabels(warmup, window, labels), Window(window)
    callback.section.begin(SAMPLES, torch.device("cpu"))
    without = 0
    for batch in schedule(seed):
        given, index = torch.tensor(batch.labels), torch.tensor(batch.index)
        target = callback.change_target(TargetCall(index, torch.tensor(batch.logits), given, given, batch.epoch))
        means = [past.mean(sample, batch.epoch) for sample in batch.index]
        without += sum(mean is None for mean in means)
        past.note(batch, batch.p)
        if batch.epoch < warmup:
            assert target is given
            continue
        rows = np.array([np.eye(CLASSES)[y] if m is None else m for m, y in zip(means, batch.labels, strict=True)])
        if labels == "soft":
            np.testing.assert_allclose(target, rows, rtol=1e-5)
        else:
            assert target.tolist() == rows.argmax(1).tolist()
    assert without > 0
