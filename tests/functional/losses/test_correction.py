from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional import losses as F
from lightning_noisy.functional.noise import symmetric_matrix
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    batches,
    close,
    inside,
    moderate,
    numpy_softmax,
    quick,
    through_softmax,
    value_and_gradient,
)


def some_transition(num_classes: int, seed: int = 0) -> Array:
    """Dominant diagonal, no symmetry."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(num_classes), num_classes)
    return 0.6 * np.eye(num_classes) + 0.4 * rows


def oracle_forward(logits: Array, labels: Array, transition: Array, eps: float) -> tuple[Array, Array]:
    softmax = numpy_softmax(logits)
    noisy = np.einsum("bi,ij->bj", np.clip(softmax, eps, 1 - eps), transition)[np.arange(len(labels)), labels]
    by_p = -transition[:, labels].T / noisy[:, None] * inside(softmax, eps, 1 - eps)
    return -np.log(noisy), through_softmax(softmax, by_p)


def oracle_backward(logits: Array, labels: Array, transition: Array, eps: float) -> tuple[Array, Array]:
    softmax = numpy_softmax(logits)
    clipped = np.clip(softmax, eps, 1 - eps)
    rows = np.linalg.solve(transition.T, np.eye(len(transition))[labels].T).T  # rows r with r T = e_y
    return -(rows * np.log(clipped)).sum(1), through_softmax(softmax, -rows / clipped * inside(softmax, eps, 1 - eps))


class TestCorrections:
    @given(batches, st.sampled_from([1e-7, 1e-2]))
    @quick
    def test_forward_oracle(self, batch: Batch, eps: float) -> None:
        transition = some_transition(batch.logits.shape[1])
        labels, matrix = torch.tensor(batch.labels), torch.tensor(transition)
        actual = value_and_gradient(lambda z: F.forward_correction(z, labels, matrix, eps), batch.logits)
        assert_equal(actual, oracle_forward(batch.logits, batch.labels, transition, eps))

    @given(batches, st.sampled_from([1e-7, 1e-2]))
    @quick
    def test_backward_oracle(self, batch: Batch, eps: float) -> None:
        transition = some_transition(batch.logits.shape[1])
        labels, inverse = torch.tensor(batch.labels), torch.tensor(np.linalg.inv(transition))
        actual = value_and_gradient(lambda z: F.backward_correction(z, labels, inverse, eps), batch.logits)
        assert_equal(actual, oracle_backward(batch.logits, batch.labels, transition, eps))

    def test_mean_over_the_noise_is_the_clean_cross_entropy(self) -> None:
        transition, logits = some_transition(4), torch.tensor(moderate().logits)
        inverse = torch.tensor(np.linalg.inv(transition))
        by_label = torch.stack([F.backward_correction(logits, torch.full((3,), j), inverse) for j in range(4)])
        for clean in range(4):
            mean = torch.tensor(transition[clean]) @ by_label
            torch.testing.assert_close(mean, F.cross_entropy(logits, torch.full((3,), clean)), **close)

    def test_forward_minimum_is_the_clean_posterior(self) -> None:
        """The gradient over noisy labels vanishes at the clean distribution."""
        transition, clean = torch.tensor(some_transition(4)), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        logits = clean.log().repeat(4, 1).requires_grad_()
        ((clean @ transition) * F.forward_correction(logits, torch.arange(4), transition)).sum().backward()
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad.sum(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)

    def test_gradcheck(self) -> None:
        batch, matrix = moderate(), torch.tensor(some_transition(4))
        leaf, labels = torch.tensor(batch.logits, requires_grad=True), torch.tensor(batch.labels)
        assert gradcheck(lambda z: F.forward_correction(z, labels, matrix), leaf)
        assert gradcheck(lambda z: F.backward_correction(z, labels, torch.linalg.inv(matrix)), leaf)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        matrix = torch.tensor(some_transition(3))
        for function, argument in ((F.forward_correction, matrix), (F.backward_correction, torch.linalg.inv(matrix))):
            logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
            losses = function(logits, torch.tensor([1, 0]), argument)
            losses.sum().backward()
            assert losses.dtype == torch.float32
            assert losses.isfinite().all()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()


class TestEstimateTransition:
    def test_a_perfect_network_gives_the_matrix(self) -> None:
        """Predictions are mixtures of the matrix's rows; each class has one certain sample."""
        transition = symmetric_matrix(5, 0.4)
        draw = np.random.default_rng(0)
        posterior = torch.tensor(0.9 * draw.dirichlet(np.ones(5), 200) + 0.02)
        posterior[[7, 19, 3, 150, 60]] = torch.eye(5, dtype=torch.float64)
        torch.testing.assert_close(F.estimate_transition(posterior @ transition), transition, **close)

    def test_rows_are_anchors(self) -> None:
        p = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3]])
        torch.testing.assert_close(F.estimate_transition(p), p[[2, 1]].double())
        assert F.estimate_transition(p).dtype == torch.float64

    @pytest.mark.parametrize("percentile", [1.0, 50.0, 90.0, 97.0, 100.0])
    def test_percentile_against_numpy(self, percentile: float) -> None:
        p = np.random.default_rng(1).dirichlet(np.ones(3), 101)
        expected = []
        for column in p.T:
            threshold = np.percentile(column, percentile, method="higher")
            expected.append(p[np.where(column >= threshold, -1.0, column).argmax()])
        actual = F.estimate_transition(torch.tensor(p), percentile)
        np.testing.assert_allclose(actual.numpy(), expected, **close)
        assert not np.array_equal(actual.numpy(), p[[0, 0, 0]])

    @pytest.mark.parametrize(
        ("probabilities", "percentile", "wanted"),
        [
            (torch.zeros(3), None, "predictions (N, K), but got 'shape (3,)'"),
            (torch.zeros(0, 3), None, "predictions (N, K), but got 'shape (0, 3)'"),
            (torch.ones(2, 2), None, "rows that sum to 1, but got 'sums from 2'"),
            (torch.eye(2) * math.nan, None, "rows that sum to 1, but got 'sums from nan'"),
            (torch.eye(2), 101.0, "a float in (0, 100] or None, but got 101.0"),
            (torch.eye(2), 0.0, "a float in (0, 100] or None, but got 0.0"),
            (torch.eye(2), math.nan, "a float in (0, 100] or None, but got nan"),
        ],
    )
    def test_refused(self, probabilities: torch.Tensor, percentile: float | None, wanted: str) -> None:
        name = "probabilities" if percentile is None else "percentile"
        with pytest.raises(NoisyLabelError) as caught:
            F.estimate_transition(probabilities, percentile)
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}."

    def test_a_class_without_an_anchor_is_named(self) -> None:
        p = torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.3, 0.2], [0.5, 0.1, 0.4]])
        with pytest.raises(NoisyLabelError, match=r"^No probability of class 0 lies below its percentile 97, so"):
            F.estimate_transition(p, 97.0)
