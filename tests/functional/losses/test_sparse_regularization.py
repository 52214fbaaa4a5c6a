from __future__ import annotations

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
    numpy_softmax,
    quick,
    value_and_gradient,
)


class TestTemperedLogits:
    @given(batches, st.sampled_from([0.1, 0.5, 2.0]), st.integers(0, 1000))
    @quick
    def test_oracle(self, batch: Batch, tau: float, seed: int) -> None:
        leaf = torch.tensor(batch.logits, requires_grad=True)
        tempered = F.tempered_logits(leaf, tau)
        length = np.linalg.norm(batch.logits, axis=1, keepdims=True)
        unit = batch.logits / length
        np.testing.assert_allclose(tempered.detach().numpy(), unit / tau, **close)
        outer = np.random.default_rng(seed).standard_normal(batch.logits.shape)
        tempered.backward(torch.tensor(outer))
        expected = (outer - unit * (unit * outer).sum(1, keepdims=True)) / (length * tau)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-9, atol=1e-9 / (length.min() * tau))

    def test_without_length_it_is_a_division(self) -> None:
        logits = torch.tensor(moderate().logits)
        assert torch.equal(F.tempered_logits(logits, 0.1, normalize=False), logits / 0.1)
        half = logits.half()
        assert torch.equal(F.tempered_logits(half, 0.1, normalize=False), half.float() / 0.1)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [0.0, 1e-30, 1e-13, 1e-12, 1e-11, 1.0, 1e30])
    def test_agrees_with_torch_wherever_that_can_compute(self, dtype: torch.dtype, size: float) -> None:
        logits = (size * torch.tensor([[3.0, -4.0, 0.0], [0.3, 0.3, 0.3]], dtype=torch.float64)).to(dtype)
        exact = torch.nn.functional.normalize(logits.double(), dim=1)
        torch.testing.assert_close(F.tempered_logits(logits, 0.5), (exact / 0.5).to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_logits_without_a_direction_have_the_gradient_of_length_one(self, dtype: torch.dtype) -> None:
        leaf = torch.tensor([[0.0, 0.0, 0.0], [1e-13, 0.0, 0.0], [1e-30, -1e-30, 0.0]], dtype=dtype, requires_grad=True)
        outer = torch.tensor([[1.0, 2.0, 3.0]] * 3, dtype=dtype)
        F.tempered_logits(leaf, 0.5).backward(outer)
        torch.testing.assert_close(leaf.grad, outer / 0.5)

    @pytest.mark.parametrize("z", [-40.0, 40.0, 7.3, 1e-3, 1e4])
    def test_one_logit_alone_has_no_gradient_along_itself(self, z: float) -> None:
        leaf = torch.tensor([[z, 0.0, 0.0, 0.0]], requires_grad=True)
        F.tempered_logits(leaf, 0.5).backward(torch.tensor([[3.0, 1.0, 0.0, -2.0]]))
        expected = torch.tensor([[0.0, 1.0, 0.0, -2.0]]) / (0.5 * abs(z))
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-6, atol=0)

    def test_largest_logits(self) -> None:
        leaf = torch.tensor([[1.0, -1.0, 0.0]]).mul(torch.finfo(torch.float32).max).requires_grad_()
        tempered = F.tempered_logits(leaf, 1.0)
        tempered.sum().backward()
        torch.testing.assert_close(tempered, torch.tensor([[0.5**0.5, -(0.5**0.5), 0.0]]))
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


class TestSparsityPenalty:
    @given(batches, st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([1e-7, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, p: float, eps: float) -> None:
        actual = value_and_gradient(lambda z: F.sparsity_penalty(z, p, eps), batch.logits)
        probability = numpy_softmax(batch.logits)
        clipped = np.maximum(probability, eps)
        by_log = p * clipped**p * (probability >= eps)
        assert_equal(actual, ((clipped**p).sum(1), by_log - probability * by_log.sum(1, keepdims=True)))

    def test_the_sharper_the_lower(self) -> None:
        logits = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [9.0, 0.0, 0.0], [1e4, 0.0, 0.0]])
        penalties = F.sparsity_penalty(logits, 0.1).tolist()
        assert penalties == sorted(penalties, reverse=True)
        assert penalties[0] == pytest.approx(3**0.9)
        assert penalties[-1] == pytest.approx(1 + 2 * 1e-7**0.1)

    def test_gradcheck(self) -> None:
        leaf = torch.tensor(moderate().logits, requires_grad=True)
        assert gradcheck(lambda z: F.sparsity_penalty(F.tempered_logits(z, 0.5), 0.1), leaf)
