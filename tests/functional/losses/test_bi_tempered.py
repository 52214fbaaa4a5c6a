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
    close,
    moderate,
    numpy_log_softmax,
    numpy_softmax,
    oracle_gce,
    quick,
    value_and_gradient,
)

temperatures = st.sampled_from([(0.0, 1.1), (0.2, 1.5), (0.7, 1.5), (0.7, 3.0), (0.9, 4.0), (1.0, 2.0), (0.5, 1.0)])


def tempered_log(values: Array, t: float) -> Array:
    return np.log(values) if t == 1 else (values ** (1 - t) - 1) / (1 - t)


def tempered_exp(values: Array, t: float) -> Array:
    return np.exp(values) if t == 1 else np.maximum(0, 1 + (1 - t) * values) ** (1 / (1 - t))


def tempered_softmax(logits: Array, t: float, num_iters: int) -> tuple[Array, Array]:
    """Probabilities of one sample (K,), and their Jacobian carried along by hand, in the public code's own steps."""
    classes = len(logits)
    if t == 1:
        p = numpy_softmax(logits[None])[0]
        return p, np.diag(p) - np.outer(p, p)
    largest = np.eye(classes)[logits.argmax()]
    start, by_start = logits - logits.max(), np.eye(classes) - largest
    values, by_values = start, by_start
    for step in range(num_iters + 1):
        exps = tempered_exp(values, t)
        total, by_total = exps.sum(), (exps**t) @ by_values
        if step < num_iters:
            values = start * total ** (1 - t)
            by_values = by_start * total ** (1 - t) + np.outer(start, (1 - t) * total**-t * by_total)
    constant = -tempered_log(1 / total, t) + logits.max()
    by_constant = total ** (t - 2) * by_total + largest
    p = tempered_exp(logits - constant, t)
    return p, (p**t)[:, None] * (np.eye(classes) - by_constant)


def oracle(logits: Array, target: Array, t1: float, t2: float, num_iters: int, eps: float) -> tuple[Array, Array]:
    values, gradients = [], []
    for z, q in zip(logits, target, strict=True):
        p, by_logits = tempered_softmax(z, t2, num_iters)
        log_p = np.where(q > 0, tempered_log(np.maximum(p, 1e-300), t1), 0.0)
        fit = q * (tempered_log(q + eps, t1) - log_p)
        values.append((fit - (q ** (2 - t1) - p ** (2 - t1)) / (2 - t1)).sum())
        by_p = -q * np.maximum(p, 1e-300) ** -t1 + p ** (1 - t1)
        gradients.append(by_p @ by_logits)
    return np.array(values), np.array(gradients)


class TestBiTemperedLogisticLoss:
    @given(batches.filter(lambda b: np.abs(b.logits).max() < 100), temperatures, st.sampled_from(["one_hot", "soft"]))
    @quick
    def test_oracle(self, batch: Batch, temperatures: tuple[float, float], kind: str) -> None:
        target = getattr(batch, kind)
        given_target = torch.tensor(target if kind == "soft" else batch.labels)
        actual = value_and_gradient(
            lambda z: F.bi_tempered_logistic_loss(z, given_target, *temperatures, 5, 1e-6), batch.logits
        )
        assert_equal(actual, oracle(batch.logits, target, *temperatures, 5, 1e-6))

    @given(batches, st.sampled_from([1, 2, 5, 20]), st.sampled_from([1.5, 3.0]))
    @quick
    def test_extremes_and_iterations(self, batch: Batch, num_iters: int, t2: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.bi_tempered_logistic_loss(z, labels, 0.7, t2, num_iters), batch.logits)
        assert_equal(actual, oracle(batch.logits, batch.one_hot, 0.7, t2, num_iters, 1e-10))

    @pytest.mark.parametrize("temperatures", [(0.7, 1.5), (0.2, 3.0)])
    def test_converged_gradient_is_the_analytic_one(self, temperatures: tuple[float, float]) -> None:
        """That of the official code, with escort probabilities."""
        t1, t2 = temperatures
        batch = moderate(size=5)
        labels = torch.tensor(batch.labels)
        _, gradient = value_and_gradient(lambda z: F.bi_tempered_logistic_loss(z, labels, t1, t2, 300), batch.logits)
        p = np.stack([tempered_softmax(z, t2, 300)[0] for z in batch.logits])
        np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-12)
        escort = p**t2 / (p**t2).sum(1, keepdims=True)
        delta = (p - batch.one_hot) * p ** (t2 - t1)
        np.testing.assert_allclose(gradient, delta - escort * delta.sum(1, keepdims=True), rtol=1e-9, atol=1e-9)

    @given(batches)
    @quick
    def test_both_temperatures_one_are_cross_entropy(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.bi_tempered_logistic_loss(z, labels, 1.0, 1.0, eps=1e-15), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 0.0))

    @pytest.mark.parametrize("t1", [0.0, 0.3, 0.7])
    def test_is_bounded(self, t1: float) -> None:
        logits = torch.tensor([[-1e300, 1e300]], dtype=torch.float64)
        value = F.bi_tempered_logistic_loss(logits, torch.tensor([0]), t1, 1.5).item()
        assert value == pytest.approx(1 / (1 - t1), rel=1e-6)

    def test_gradcheck(self) -> None:
        batch = moderate()
        leaf = torch.tensor(batch.logits, requires_grad=True)
        for target in (torch.tensor(batch.labels), torch.tensor(batch.soft)):
            for temperatures in ((0.7, 1.5), (1.0, 3.0), (0.7, 1.0)):
                assert gradcheck(
                    lambda z, target=target, ts=temperatures: F.bi_tempered_logistic_loss(z, target, *ts), leaf
                )


class TestLogTemperedSoftmax:
    @given(batches, st.sampled_from([1.01, 1.5, 3.0]))
    @quick
    def test_sums_to_one_once_converged(self, batch: Batch, t: float) -> None:
        p = F.log_tempered_softmax(torch.tensor(batch.logits), t, 500).exp()
        np.testing.assert_allclose(p.sum(dim=1).numpy(), 1.0, rtol=1e-6)

    def test_five_iterations_leave_a_remainder(self) -> None:
        logits = torch.tensor(10 * moderate(num_classes=20).logits)
        for num_iters, low, high in ((1, 1e-2, 1.0), (5, 1e-6, 1e-1)):
            remainder = (F.log_tempered_softmax(logits, 3.0, num_iters).exp().sum(dim=1) - 1).abs().max().item()
            assert low < remainder < high

    @given(batches, st.sampled_from([1.5, 3.0]))
    @quick
    def test_does_not_change_when_all_logits_move(self, batch: Batch, t: float) -> None:
        logits = torch.tensor(np.round(batch.logits, 3))
        moved = F.log_tempered_softmax(logits + 1024.0, t)
        torch.testing.assert_close(moved, F.log_tempered_softmax(logits, t), rtol=1e-9, atol=1e-9)

    def test_temperature_near_one_is_the_softmax(self) -> None:
        logits = torch.tensor(moderate().logits)
        near, exact = F.log_tempered_softmax(logits, 1 + 1e-7), F.log_tempered_softmax(logits, 1.0)
        torch.testing.assert_close(near, exact, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(exact.numpy(), numpy_log_softmax(logits.numpy()), **close)
