from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    batches,
    close,
    inside,
    moderate,
    numpy_softmax,
    oracle_elr,
    oracle_gce,
    oracle_mae,
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle_rce(logits: Array, target: Array, eps: float, label_floor: float) -> tuple[Array, Array]:
    probability = numpy_softmax(logits)
    log_target = np.log(np.clip(target, label_floor, 1))
    values = -(np.clip(probability, eps, 1) * log_target).sum(1)
    return values, through_softmax(probability, -log_target * inside(probability, eps, 1))


class TestMeanAbsoluteError:
    @given(batches, st.sampled_from([1.0, 2.0]))
    @quick
    def test_oracle(self, batch: Batch, scale: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.mean_absolute_error(z, labels, scale), batch.logits)
        assert_equal(actual, oracle_mae(batch.logits, batch.labels, scale))

    @given(batches)
    @quick
    def test_is_generalized_cross_entropy_at_one(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.mean_absolute_error(z, labels), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 1.0, 0.0))

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.mean_absolute_error(z, labels, 2.0), leaf)


class TestReverseCrossEntropy:
    @given(batches, st.sampled_from([0.0, 1e-7, 1e-2]), st.sampled_from([1e-4, 0.05]))
    @quick
    def test_labels(self, batch: Batch, eps: float, label_floor: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.reverse_cross_entropy(z, labels, eps, label_floor), batch.logits)
        assert_equal(actual, oracle_rce(batch.logits, batch.one_hot, eps, label_floor))

    @given(batches, st.sampled_from([1e-7, 1e-2]), st.sampled_from([1e-4, 0.05]), st.sampled_from([1.0, 2.0]))
    @quick
    def test_distribution_that_need_not_sum_to_one(
        self, batch: Batch, eps: float, label_floor: float, total: float
    ) -> None:
        target = total * batch.soft
        actual = value_and_gradient(
            lambda z: F.reverse_cross_entropy(z, torch.tensor(target), eps, label_floor), batch.logits
        )
        assert_equal(actual, oracle_rce(batch.logits, target, eps, label_floor))

    @given(batches)
    @quick
    def test_is_scaled_mean_absolute_error(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.reverse_cross_entropy(z, labels, eps=0.0), batch.logits)
        assert_equal(actual, oracle_mae(batch.logits, batch.labels, 9.210340371976182))

    def test_extremes_by_hand(self) -> None:
        logits, labels = np.array([[1e4, -1e4, 0.0]] * 2), torch.tensor([0, 1])
        values, gradient = value_and_gradient(lambda z: F.reverse_cross_entropy(z, labels), logits)
        np.testing.assert_allclose(values, -np.log(1e-4) * np.array([2e-7, 1 + 1e-7]), **close)
        assert not gradient.any()

    def test_gradcheck(self) -> None:
        batch = moderate()
        leaf = torch.tensor(batch.logits, requires_grad=True)
        for target in (torch.tensor(batch.labels), torch.tensor(batch.soft)):
            assert gradcheck(lambda z, target=target: F.reverse_cross_entropy(z, target), leaf)


class TestSymmetricCrossEntropy:
    @given(batches, st.sampled_from(["one_hot", "soft"]), st.sampled_from([(0.1, 1.0), (6.0, 0.1), (0.0, 2.0)]))
    @quick
    def test_oracle(self, batch: Batch, kind: str, weights: tuple[float, float]) -> None:
        target = getattr(batch, kind)
        given_target = torch.tensor(target if kind == "soft" else batch.labels)
        actual = value_and_gradient(
            lambda z: F.symmetric_cross_entropy(z, given_target, *weights, eps=1e-3, label_floor=1e-2), batch.logits
        )
        forth = oracle_elr(batch.logits, target, batch.history, 0.0, 1e-4)
        back = oracle_rce(batch.logits, target, 1e-3, 1e-2)
        assert_equal(actual, tuple(weights[0] * f + weights[1] * b for f, b in zip(forth, back, strict=True)))
