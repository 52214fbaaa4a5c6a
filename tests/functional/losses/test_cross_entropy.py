from __future__ import annotations

from decimal import Decimal, getcontext

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
    batches,
    focal_parts,
    moderate,
    numpy_log_softmax,
    numpy_softmax,
    oracle_elr,
    oracle_gce,
    oracle_mae,
    quick,
    value_and_gradient,
)


def of_label(batch: Batch) -> tuple[Array, Array, Array]:
    """Logarithm of the label's probability, that probability, and the gradient of the former."""
    step = batch.one_hot - numpy_softmax(batch.logits)
    log_probability = numpy_log_softmax(batch.logits)[np.arange(len(batch.labels)), batch.labels]
    return log_probability, np.exp(log_probability), step


class TestCrossEntropy:
    @given(batches)
    @quick
    def test_labels(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 0.0))

    @given(batches, st.floats(0.5, 2.0))
    @quick
    def test_distribution_that_need_not_sum_to_one(self, batch: Batch, total: float) -> None:
        target = total * batch.soft
        actual = value_and_gradient(lambda z: F.cross_entropy(z, torch.tensor(target)), batch.logits)
        assert_equal(actual, oracle_elr(batch.logits, target, batch.history, 0.0, 1e-4))

    @given(batches)
    @quick
    def test_one_hot_rows_agree_with_labels(self, batch: Batch) -> None:
        labels, rows = torch.tensor(batch.labels), torch.tensor(batch.one_hot)
        hard = value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits)
        assert_equal(value_and_gradient(lambda z: F.cross_entropy(z, rows), batch.logits), hard)


class TestFocalLoss:
    @given(batches, st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans())
    @quick
    def test_oracle(self, batch: Batch, gamma: float, detach: bool) -> None:
        labels, rows = torch.tensor(batch.labels), batch.one_hot
        actual = value_and_gradient(lambda z: F.focal_loss(z, labels, gamma, detach), batch.logits)
        probability = numpy_softmax(batch.logits)
        values, by_log = focal_parts(probability, numpy_log_softmax(batch.logits), gamma, detach)
        assert_equal(actual, ((values * rows).sum(1), (by_log * rows).sum(1, keepdims=True) * (rows - probability)))

    @pytest.mark.parametrize("detach", [True, False])
    def test_exponent_zero_is_cross_entropy(self, detach: bool) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.focal_loss(z, labels, 0.0, detach), batch.logits)
        assert_equal(actual, value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits))

    @pytest.mark.parametrize("gamma", [1e-3, 0.5, 2.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_certain_label_has_no_gradient(self, gamma: float, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
        losses = F.focal_loss(logits, torch.tensor([0]), gamma)
        losses.sum().backward()
        assert losses.item() == 0.0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_gradcheck_knows_whether_the_factor_is_a_constant(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.focal_loss(z, labels, 0.5), leaf)
        assert not gradcheck(lambda z: F.focal_loss(z, labels, 0.5, detach=True), leaf, raise_exception=False)


class TestTaylorCrossEntropy:
    @given(batches, st.sampled_from([1, 2, 3, 18, 20]), st.sampled_from([0.0, 1e-6, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, order: int, eps: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.taylor_cross_entropy(z, labels, order, eps), batch.logits)
        _, probability, step = of_label(batch)
        rest = 1 - np.maximum(probability, eps)
        values = sum(rest**k / k for k in range(1, order + 1))
        by_probability = -sum(rest**k for k in range(order)) * (probability >= eps)
        assert_equal(actual, (np.asarray(values), (by_probability * probability)[:, None] * step))

    def test_first_order_is_mean_absolute_error(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.taylor_cross_entropy(z, labels, 1, 0.0), batch.logits)
        assert_equal(actual, oracle_mae(batch.logits, batch.labels, 1.0))

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
    @pytest.mark.parametrize("order", [100, 10_000])
    def test_high_orders_lose_no_digits(self, order: int, dtype: torch.dtype, tolerance: float) -> None:
        """Against decimals, at probabilities that both dtypes hold."""
        odds = (2**-20, 2**-10, 0.25, 1 - 2**-10)
        logits = torch.tensor([[np.log(p / (1 - p)), 0.0] for p in odds], dtype=dtype, requires_grad=True)
        losses = F.taylor_cross_entropy(logits, torch.zeros(4, dtype=torch.int64), order, 0.0)
        losses.sum().backward()
        getcontext().prec = 30
        rests = [1 - Decimal(p) for p in odds]
        values = [float(sum(rest**k / k for k in range(1, order + 1))) for rest in rests]
        gradients = [-float((1 - rest**order) * rest) for rest in rests]
        np.testing.assert_allclose(losses.detach().numpy(), values, rtol=tolerance, atol=tolerance)
        assert logits.grad is not None
        np.testing.assert_allclose(logits.grad[:, 0].numpy(), gradients, rtol=100 * tolerance)

    def test_the_limit_is_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.taylor_cross_entropy(z, labels, 2000), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 0.0))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_certain_and_hopeless_by_hand(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
        losses = F.taylor_cross_entropy(logits, torch.tensor([0, 0]), 3)
        losses.sum().backward()
        np.testing.assert_allclose(losses.detach().numpy(), [0.0, 11 / 6 - 3e-6], atol=1e-6)
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.taylor_cross_entropy(z, labels, 6), leaf)


class TestPoly1CrossEntropy:
    @given(batches, st.sampled_from([-1.0, 0.0, 2.0, 10.0]))
    @quick
    def test_oracle(self, batch: Batch, epsilon: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.poly1_cross_entropy(z, labels, epsilon), batch.logits)
        log_probability, probability, step = of_label(batch)
        values = -log_probability + epsilon * (1 - probability)
        assert_equal(actual, (values, -(1 + epsilon * probability)[:, None] * step))

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.poly1_cross_entropy(z, labels, 2.0), leaf)
