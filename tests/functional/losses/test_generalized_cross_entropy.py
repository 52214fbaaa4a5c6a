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
    Batch,
    assert_equal,
    batches,
    close,
    moderate,
    oracle_gce,
    quick,
    value_and_gradient,
)


class TestGeneralizedCrossEntropy:
    @given(batches, st.sampled_from([0.0, 0.1, 0.7, 1.0, 1.5]), st.sampled_from([0.0, 1e-7, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, q: float, eps: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.generalized_cross_entropy(z, labels, q, eps), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, q, eps))

    @pytest.mark.parametrize("extreme", [1e3, 1e4])
    @pytest.mark.parametrize("q", [0.0, 0.7, 1.5])
    def test_label_certain_and_label_hopeless(self, extreme: float, q: float) -> None:
        logits, labels = np.array([[extreme, -extreme], [-extreme, extreme]]), np.array([0, 0])
        values, gradient = value_and_gradient(
            lambda z: F.generalized_cross_entropy(z, torch.tensor(labels), q, 1e-7), logits
        )
        hopeless = -np.log(1e-7) if q == 0 else (1 - 1e-7**q) / q
        np.testing.assert_allclose(values, [0.0, hopeless], **close)
        assert not gradient.any()

    def test_gradient_is_zero_exactly_below_the_floor(self) -> None:
        logits, labels = np.array([[-17.0, 0.0], [-16.0, 0.0]]), torch.tensor([0, 0])  # p_y = 4e-8 and 1.1e-7
        _, gradient = value_and_gradient(lambda z: F.generalized_cross_entropy(z, labels, 0.7, 1e-7), logits)
        assert not gradient[0].any()
        assert gradient[1].all()

    @pytest.mark.parametrize("q", [1e-3, 1e-8, 1e-12])
    def test_tiny_exponents_lose_no_digits(self, q: float) -> None:
        getcontext().prec = 60
        odds = (Decimal(1) + (-Decimal(3)).exp(), Decimal(1) + Decimal(3).exp())
        expected = [float((1 - (1 / odd) ** Decimal(q)) / Decimal(q)) for odd in odds]
        logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
        losses = F.generalized_cross_entropy(logits, torch.tensor([0, 0]), q, 0.0)
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-13)

    def test_exponent_to_zero_is_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        limit = value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits)
        assert_equal(value_and_gradient(lambda z: F.generalized_cross_entropy(z, labels, 0.0), batch.logits), limit)
        near = value_and_gradient(lambda z: F.generalized_cross_entropy(z, labels, 1e-8), batch.logits)
        for mine, oracle in zip(near, limit, strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-6)

    @pytest.mark.parametrize("q", [0.1, 0.7, 1.0, 1.5])
    @pytest.mark.parametrize("margin", [0.0, 1.0, 8.0, 16.0])
    def test_float32_keeps_small_gradients(self, q: float, margin: float) -> None:
        logits, labels = np.array([[0.0, margin]]), torch.tensor([0])
        _, expected = oracle_gce(logits, np.array([0]), q, 0.0)
        leaf = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
        F.generalized_cross_entropy(leaf, labels, q, 0.0).sum().backward()
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-5)

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        for q in (0.0, 0.7, 1.5):
            assert gradcheck(lambda z, q=q: F.generalized_cross_entropy(z, labels, q), leaf)
