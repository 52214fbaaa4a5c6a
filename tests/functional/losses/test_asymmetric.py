from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    batches,
    moderate,
    numpy_softmax,
    oracle_gce,
    quick,
    through_softmax,
    value_and_gradient,
)


def by_label(
    batch: Batch, function: Callable[[Array], Array], derivative: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Values and gradients of a function of the label's probability."""
    probability = numpy_softmax(batch.logits)
    p = (batch.one_hot * probability).sum(1)
    return function(p), through_softmax(probability, batch.one_hot * derivative(p)[:, None])


class TestAsymmetricGeneralizedCrossEntropy:
    @given(batches, st.sampled_from([1e-5, 0.5, 1.8, 6.0]), st.sampled_from([0.2, 0.7, 1.0, 1.5, 3.0]))
    @quick
    def test_oracle(self, batch: Batch, a: float, q: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.asymmetric_generalized_cross_entropy(z, labels, a, q), batch.logits)
        expected = by_label(batch, lambda p: ((a + 1) ** q - (a + p) ** q) / q, lambda p: -((a + p) ** (q - 1)))
        assert_equal(actual, expected)

    def test_small_addend_is_generalized_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(
            lambda z: F.asymmetric_generalized_cross_entropy(z, labels, 1e-14, 0.7), batch.logits
        )
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.7, 0.0))

    @pytest.mark.parametrize("q", [1e-6, 1e-12])
    def test_tiny_exponents_lose_no_digits(self, q: float) -> None:
        logits = torch.tensor([[1.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
        losses = F.asymmetric_generalized_cross_entropy(logits, torch.tensor([0, 0]), 2.0, q)
        getcontext().prec, exponent = 60, Decimal(q)
        ps = [1 / (1 + Decimal(-z).exp()) for z in (1, -3)]
        expected = [float((Decimal(3) ** exponent - (2 + p) ** exponent) / exponent) for p in ps]
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-13)

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.asymmetric_generalized_cross_entropy(z, labels, 6.0, 1.5), leaf)


class TestAsymmetricUnhingedLoss:
    @given(batches, st.sampled_from([1.001, 1.5, 6.3]), st.sampled_from([0.1, 0.9, 1.0, 1.5, 3.0]))
    @quick
    def test_oracle(self, batch: Batch, a: float, q: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.asymmetric_unhinged_loss(z, labels, a, q), batch.logits)
        expected = by_label(batch, lambda p: ((a - p) ** q - (a - 1) ** q) / q, lambda p: -((a - p) ** (q - 1)))
        assert_equal(actual, expected)

    @pytest.mark.parametrize("q", [1e-6, 1e-12])
    def test_tiny_exponents_lose_no_digits(self, q: float) -> None:
        logits = torch.tensor([[1.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
        losses = F.asymmetric_unhinged_loss(logits, torch.tensor([0, 0]), 3.0, q)
        getcontext().prec, exponent = 60, Decimal(q)
        ps = [1 / (1 + Decimal(-z).exp()) for z in (1, -3)]
        expected = [float(((3 - p) ** exponent - Decimal(2) ** exponent) / exponent) for p in ps]
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-13)

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.asymmetric_unhinged_loss(z, labels, 6.3, 1.5), leaf)


class TestAsymmetricExponentialLoss:
    @given(batches, st.sampled_from([0.1, 1.5, 5.0]))
    @quick
    def test_oracle(self, batch: Batch, a: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.asymmetric_exponential_loss(z, labels, a), batch.logits)
        assert_equal(actual, by_label(batch, lambda p: np.exp(-p / a), lambda p: -np.exp(-p / a) / a))

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.asymmetric_exponential_loss(z, labels, 1.5), leaf)


@pytest.mark.parametrize("weights", [(0.45, 0.3, 0.25), (0.6, 0.4, 0.0)])
@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.asymmetric_generalized_cross_entropy(z, y, 6.0, 1.5),
        lambda z, y: F.asymmetric_generalized_cross_entropy(z, y, 4.0, 0.2),
        lambda z, y: F.asymmetric_unhinged_loss(z, y, 3.0, 0.1),
        lambda z, y: F.asymmetric_unhinged_loss(z, y, 6.3, 1.5),
        lambda z, y: F.asymmetric_exponential_loss(z, y, 5.0),
    ],
)
def test_noisy_mean_is_least_at_the_most_frequent_label(
    loss: Callable[[Tensor, Tensor], Tensor], weights: tuple[float, ...]
) -> None:
    """Over a grid of the simplex: what makes a loss asymmetric. Cross entropy is least at the weights themselves."""
    steps = range(21)
    grid = torch.tensor([(i, j, 20 - i - j) for i in steps for j in steps if i + j <= 20], dtype=torch.float64) / 20
    logits = grid.clamp(min=1e-300).log()

    def noisy(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        by_label = [function(logits, torch.full((len(grid),), k)) for k in range(3)]
        return sum((w * values for w, values in zip(weights, by_label, strict=True)), torch.zeros(len(grid)))

    assert grid[noisy(loss).argmin()].tolist() == [1.0, 0.0, 0.0]
    assert grid[noisy(F.cross_entropy).argmin()].tolist() == pytest.approx(weights)
