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
    batches,
    inside,
    moderate,
    numpy_softmax,
    oracle_gce,
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle_nal(
    logits: Array, target: Array, attention: Array, lam: float, beta: float, eps: float, target_eps: float
) -> tuple[Array, Array, Array]:
    low, high = 1e-12, 1 - 1e-12
    softmax, sigmoid = numpy_softmax(logits), 1 / (1 + np.exp(-np.clip(attention, -700, 700)))[:, None]
    p, tau = np.clip(softmax, low, high), np.clip(sigmoid, low, high)
    raw = tau * p + (1 - tau) * target
    u = np.clip(raw, eps, 1)
    log_target = np.log(np.maximum(target, target_eps))
    values = -(target * np.log(u)).sum(1) - lam * np.log(tau[:, 0])
    by_u = -target / u
    if beta > 0:
        values -= beta * (u * log_target).sum(1)
        by_u -= beta * log_target
    by_u *= inside(raw, eps, 1)
    by_tau = (by_u * (p - target)).sum(1) - lam / tau[:, 0]
    by_h = by_tau * inside(sigmoid, low, high)[:, 0] * sigmoid[:, 0] * (1 - sigmoid[:, 0])
    return values, through_softmax(softmax, tau * by_u * inside(softmax, low, high)), by_h


def nal_value_and_gradients(
    batch: Batch, target: Array, lam: float, beta: float, eps: float = 1e-7, target_eps: float = 1e-4
) -> tuple[Array, Array, Array]:
    attention = torch.tensor(batch.attention, requires_grad=True)
    values, gradient = value_and_gradient(
        lambda z: F.noise_attention(
            z, torch.tensor(target), attention, lam, beta, eps=eps, attention_eps=1e-12, target_eps=target_eps
        ),
        batch.logits,
    )
    assert attention.grad is not None
    return values, gradient, attention.grad.numpy()


class TestNoiseAttention:
    @given(batches, st.sampled_from(["one_hot", "soft"]), st.sampled_from([0.0, 0.1]), st.sampled_from([1e-7, 0.05]))
    @quick
    def test_oracle(self, batch: Batch, kind: str, beta: float, eps: float) -> None:
        target = getattr(batch, kind)
        actual = nal_value_and_gradients(batch, target, 0.5, beta, eps, 1e-3)
        assert_equal(actual, oracle_nal(batch.logits, target, batch.attention, 0.5, beta, eps, 1e-3))

    @pytest.mark.parametrize("beta", [0.0, 0.1])
    @pytest.mark.parametrize("scale", [1e3, 1e4])
    @pytest.mark.parametrize("attention", [-1e4, -30.0, 0.0, 30.0, 1e4])
    def test_extremes_with_exact_zeros_in_the_target(self, beta: float, scale: float, attention: float) -> None:
        batch = moderate()
        batch.logits = scale * np.array([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1]])
        batch.labels = np.array([0, 0, 3])
        batch.attention = np.full(3, attention)
        actual = nal_value_and_gradients(batch, batch.one_hot, 0.5, beta)
        assert all(np.isfinite(part).all() for part in actual)
        assert_equal(actual, oracle_nal(batch.logits, batch.one_hot, batch.attention, 0.5, beta, 1e-7, 1e-4))

    @pytest.mark.parametrize("attention", [-1e4, -28.0, 28.0, 1e4])
    def test_attention_beyond_its_clip_has_no_gradient(self, attention: float) -> None:
        batch = moderate()
        batch.attention = np.full(3, attention)
        values, _, by_attention = nal_value_and_gradients(batch, batch.one_hot, 2.0, 0.0)
        assert not by_attention.any()
        if attention < 0:
            np.testing.assert_allclose(values, -2.0 * np.log(1e-12), rtol=1e-8)

    @pytest.mark.parametrize("beta", [0.0, 0.1])
    @pytest.mark.parametrize("attention_eps", [0.0, 1e-12])
    def test_float32_is_finite(self, beta: float, attention_eps: float) -> None:
        attention = torch.tensor([-1e4, -100.0, -20.0, 20.0, 100.0, 1e4], requires_grad=True)
        logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]]).repeat(3, 1).requires_grad_()
        target = torch.tensor([[1.0, 0.0]]).expand(6, 2)
        losses = F.noise_attention(logits, target, attention, 0.5, beta, attention_eps=attention_eps)
        losses.sum().backward()
        assert attention.grad is not None
        assert logits.grad is not None
        for part in (losses, logits.grad, attention.grad):
            assert part.isfinite().all()

    @given(st.integers(0, 1000), st.floats(-6.0, 6.0))
    @quick
    def test_theorem_1_scales_the_gradient_of_cross_entropy(self, seed: int, attention: float) -> None:
        batch = moderate(seed)
        batch.attention[:] = attention
        tau = 1 / (1 + np.exp(-attention))
        label_probability = numpy_softmax(batch.logits)[np.arange(3), batch.labels]
        _, plain = oracle_gce(batch.logits, batch.labels, 0.0, 0.0)
        _, gradient, _ = nal_value_and_gradients(batch, batch.one_hot, 10.0, 0.0)
        factor = label_probability / (label_probability - 1 + 1 / tau)
        np.testing.assert_allclose(gradient, factor[:, None] * plain, rtol=1e-8, atol=1e-12)

    def test_column_of_attention_is_not_broadcast_over_the_batch(self) -> None:
        batch = moderate()
        logits, target, attention = map(torch.tensor, (batch.logits, batch.soft, batch.attention))
        flat = F.noise_attention(logits, target, attention, 0.5)
        column = F.noise_attention(logits, target, attention[:, None], 0.5)
        assert torch.equal(flat, column)

    def test_gradcheck(self) -> None:
        batch = moderate()
        target = torch.tensor(batch.soft)
        leaves = (torch.tensor(batch.logits, requires_grad=True), torch.tensor(batch.attention, requires_grad=True))
        for beta in (0.0, 0.1):
            assert gradcheck(lambda z, h, beta=beta: F.noise_attention(z, target, h, 0.5, beta), leaves)


class TestConfidenceLogits:
    @given(batches)
    @quick
    def test_sigmoid_is_the_largest_probability(self, batch: Batch) -> None:
        p, best = numpy_softmax(batch.logits), batch.logits.argmax(1)
        actual = value_and_gradient(lambda z: F.confidence_logits(z).sigmoid(), batch.logits)
        p_best = p[np.arange(len(p)), best]
        gradient = p_best[:, None] * (np.eye(p.shape[1])[best] - p)
        assert_equal(actual, (p_best, gradient))

    def test_certain_predictions(self) -> None:
        logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
        values = F.confidence_logits(logits)
        values.sum().backward()
        torch.testing.assert_close(values.detach(), torch.tensor([1e4, -np.log(2.0)]).float())
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
