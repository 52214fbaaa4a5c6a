from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    assert_sum_over_labels,
    batches,
    close,
    focal_parts,
    moderate,
    numpy_log_softmax,
    numpy_softmax,
    oracle_mae,
    oracle_nce,
    quick,
    value_and_gradient,
)


def share_of(parts: Array, by_log: Array, batch: Batch) -> tuple[Array, Array]:
    """The label's share of a sum over all labels, and its gradient, of parts and their derivatives by log p."""
    total = parts.sum(1, keepdims=True)
    share = (batch.one_hot * parts).sum(1, keepdims=True) / total
    gradient = (batch.one_hot - share) / total * by_log
    return share[:, 0], gradient - numpy_softmax(batch.logits) * gradient.sum(1, keepdims=True)


class TestNormalizedCrossEntropy:
    @given(batches)
    @quick
    def test_oracle(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_cross_entropy(z, labels), batch.logits)
        assert_equal(actual, oracle_nce(batch.logits, batch.labels))

    @given(batches)
    @quick
    def test_sums_to_one_over_the_labels(self, batch: Batch) -> None:
        assert_sum_over_labels(F.normalized_cross_entropy, batch, 1.0)

    def test_extremes_by_hand(self) -> None:
        logits, labels = torch.tensor([[1e4, -1e4, 0.0]] * 3, dtype=torch.float64), torch.tensor([0, 1, 2])
        losses = F.normalized_cross_entropy(logits, labels)
        np.testing.assert_allclose(losses.numpy(), [0.0, 2 / 3, 1 / 3], **close)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_denominator_does_not_overflow(self, dtype: torch.dtype) -> None:
        logits = torch.full((2, 5), -torch.finfo(dtype).max, dtype=dtype)
        logits[:, 0] *= -1.0
        assert F.normalized_cross_entropy(logits, torch.tensor([0, 1])).tolist() == [0.0, 0.25]

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.normalized_cross_entropy(z, labels), leaf)


class TestNormalizedFocalLoss:
    @given(batches, st.sampled_from([0.0, 0.5, 2.0]), st.booleans())
    @quick
    def test_oracle(self, batch: Batch, gamma: float, detach: bool) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_focal_loss(z, labels, gamma, detach), batch.logits)
        parts = focal_parts(numpy_softmax(batch.logits), numpy_log_softmax(batch.logits), gamma, detach)
        assert_equal(actual, share_of(*parts, batch))

    @given(batches)
    @quick
    def test_sums_to_one_over_the_labels(self, batch: Batch) -> None:
        assert_sum_over_labels(F.normalized_focal_loss, batch, 1.0)

    def test_exponent_zero_is_normalized_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_focal_loss(z, labels, 0.0), batch.logits)
        assert_equal(actual, oracle_nce(batch.logits, batch.labels))

    def test_factors_are_constants_unless_asked(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.normalized_focal_loss(z, labels, 0.5, detach=False), leaf)
        assert not gradcheck(lambda z: F.normalized_focal_loss(z, labels, 0.5), leaf, raise_exception=False)


class TestNormalizedGeneralizedCrossEntropy:
    @given(batches, st.sampled_from([0.1, 0.7, 1.0, 2.0]), st.sampled_from([0.0, 1e-7, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, q: float, eps: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_generalized_cross_entropy(z, labels, q, eps), batch.logits)
        probability = numpy_softmax(batch.logits)
        clipped = np.maximum(probability, eps)
        assert_equal(actual, share_of(1 - clipped**q, -q * clipped**q * (probability >= eps), batch))

    @given(batches, st.sampled_from([0.1, 0.7]))
    @quick
    def test_sums_to_one_over_the_labels(self, batch: Batch, q: float) -> None:
        assert_sum_over_labels(lambda z, y: F.normalized_generalized_cross_entropy(z, y, q), batch, 1.0)

    def test_exponent_to_zero_is_normalized_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        near = value_and_gradient(lambda z: F.normalized_generalized_cross_entropy(z, labels, 1e-10, 0.0), batch.logits)
        for mine, oracle in zip(near, oracle_nce(batch.logits, batch.labels), strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-8)

    @given(batches)
    @quick
    def test_exponent_one_is_mean_absolute_error(self, batch: Batch) -> None:
        labels, classes = torch.tensor(batch.labels), batch.logits.shape[1]
        actual = value_and_gradient(lambda z: F.normalized_generalized_cross_entropy(z, labels, 1.0, 0.0), batch.logits)
        assert_equal(actual, oracle_mae(batch.logits, batch.labels, 1 / (classes - 1)))

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.normalized_generalized_cross_entropy(z, labels, 0.7), leaf)
