"""Each loss against a float64 oracle in numpy with a gradient derived by hand, clamps and extreme logits included."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F

Array = NDArray[np.float64]

SCALES = (1e-3, 1.0, 10.0, 1e3, 1e4)
close = {"rtol": 1e-10, "atol": 1e-10}


def numpy_softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def numpy_log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def through_softmax(probability: Array, gradient: Array) -> Array:
    """The gradient by the logits of a function with the given gradient by the probabilities."""
    return probability * (gradient - (probability * gradient).sum(1, keepdims=True))


def inside(values: Array, low: float, high: float) -> Array:
    """1 where a clip lets the gradient pass."""
    return ((values >= low) & (values <= high)).astype(float)


def oracle_gce(logits: Array, target: NDArray[np.int64], q: float, eps: float) -> tuple[Array, Array]:
    probability, rows = numpy_softmax(logits), np.arange(len(logits))
    label_probability = probability[rows, target]
    clipped = np.maximum(label_probability, eps)
    if q > 0:
        values = (1 - clipped**q) / q
    elif eps > 0:
        values = -np.log(clipped)
    else:
        values = -numpy_log_softmax(logits)[rows, target]
    step = probability - np.eye(logits.shape[1])[target]
    return values, (label_probability**q * (label_probability >= eps))[:, None] * step


def oracle_bootstrapping(logits: Array, eps: float) -> tuple[Array, Array]:
    probability = numpy_softmax(logits)
    values = -(probability * np.log(probability + eps)).sum(1)
    return values, through_softmax(probability, -np.log(probability + eps) - probability / (probability + eps))


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


def oracle_elr(logits: Array, target: Array, history: Array, lam: float, eps: float) -> tuple[Array, Array]:
    softmax = numpy_softmax(logits)
    p = np.clip(softmax, eps, 1 - eps)
    rest = 1 - (history * p).sum(1, keepdims=True)
    values = -(target * numpy_log_softmax(logits)).sum(1) + lam * np.log(rest[:, 0])
    by_p = -lam * history / rest * inside(softmax, eps, 1 - eps)
    return values, softmax * target.sum(1, keepdims=True) - target + through_softmax(softmax, by_p)


def oracle_mae(logits: Array, target: NDArray[np.int64], scale: float) -> tuple[Array, Array]:
    """The literal sum of absolute differences, halved."""
    probability, rows = numpy_softmax(logits), np.eye(logits.shape[1])[target]
    values = scale / 2 * np.abs(probability - rows).sum(1)
    return values, through_softmax(probability, scale / 2 * np.sign(probability - rows))


def oracle_nce(logits: Array, target: NDArray[np.int64]) -> tuple[Array, Array]:
    log_probability, rows = numpy_log_softmax(logits), np.eye(logits.shape[1])[target]
    total = log_probability.sum(1, keepdims=True)
    values = (rows * log_probability).sum(1) / total[:, 0]
    by_log = (rows - values[:, None]) / total
    return values, by_log - numpy_softmax(logits) * by_log.sum(1, keepdims=True)


def oracle_rce(logits: Array, target: Array, eps: float, label_floor: float) -> tuple[Array, Array]:
    probability = numpy_softmax(logits)
    log_target = np.log(np.clip(target, label_floor, 1))
    values = -(np.clip(probability, eps, 1) * log_target).sum(1)
    return values, through_softmax(probability, -log_target * inside(probability, eps, 1))


def oracle_nnce(logits: Array, target: NDArray[np.int64], eps: float) -> tuple[Array, Array]:
    probability, log_probability = numpy_softmax(logits), numpy_log_softmax(logits)
    rows = np.eye(logits.shape[1])[target]
    remainder = -np.log(eps) + np.maximum(log_probability, np.log(eps))
    total = remainder.sum(1, keepdims=True)
    share = (rows * remainder).sum(1, keepdims=True) / total
    by_log = (share - rows) / total * inside(log_probability, np.log(eps), 0)
    return 1 - share[:, 0], by_log - probability * by_log.sum(1, keepdims=True)


def value_and_gradient(function: Callable[[Tensor], Tensor], logits: Array) -> tuple[Array, Array]:
    leaf = torch.tensor(logits, requires_grad=True)
    losses = function(leaf)
    assert losses.shape == (len(logits),)
    assert losses.dtype == torch.float64
    losses.sum().backward()
    assert leaf.grad is not None
    return losses.detach().numpy(), leaf.grad.numpy()


def assert_equal(actual: tuple[Array, ...], expected: tuple[Array, ...]) -> None:
    assert len(actual) == len(expected)
    for mine, oracle in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, oracle, **close)


class Batch:
    def __init__(self, size: int, num_classes: int, scale: float, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.logits = scale * draw.standard_normal((size, num_classes))
        self.labels = draw.integers(num_classes, size=size)
        self.soft = draw.dirichlet(np.ones(num_classes), size)
        self.history = draw.uniform() * draw.dirichlet(np.ones(num_classes), size)
        self.attention = draw.choice([1.0, 5.0, 1e3]) * draw.standard_normal(size)

    @property
    def one_hot(self) -> Array:
        return np.eye(self.logits.shape[1])[self.labels]


def assert_sum_over_labels(loss: Callable[[Tensor, Tensor], Tensor], batch: Batch, total: float) -> None:
    """A loss whose sum over all labels is constant is robust to symmetric noise."""
    logits = torch.tensor(batch.logits)
    by_label = [loss(logits, torch.full((len(logits),), k)) for k in range(logits.shape[1])]
    np.testing.assert_allclose(sum(by_label).numpy(), total, **close)


batches = st.builds(Batch, st.integers(1, 5), st.integers(2, 20), st.sampled_from(SCALES), st.integers(0, 2**32 - 1))
quick = settings(max_examples=60, deadline=None)


def moderate(seed: int = 0, size: int = 3, num_classes: int = 4) -> Batch:
    batch = Batch(size, num_classes, 1.0, seed)
    batch.attention = np.linspace(-2.0, 2.0, size)
    return batch


class TestOneHot:
    def test_rows(self) -> None:
        rows = F.one_hot(torch.tensor([2, 0]), 3)
        assert rows.dtype == torch.float32
        assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]

    def test_floor_is_not_renormalised(self) -> None:
        rows = F.one_hot(torch.tensor([1]), 3, floor=1e-4, dtype=torch.float64)
        assert rows.tolist() == [[1e-4, 1.0, 1e-4]]


class TestClippedSoftmax:
    @given(batches)
    @quick
    def test_oracle(self, batch: Batch) -> None:
        clipped = F.clipped_softmax(torch.tensor(batch.logits), 0.01).numpy()
        np.testing.assert_allclose(clipped, np.clip(numpy_softmax(batch.logits), 0.01, 0.99), **close)


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


class TestSoftBootstrapping:
    @given(batches, st.sampled_from([1e-12, 1e-6, 0.1]))
    @quick
    def test_oracle(self, batch: Batch, eps: float) -> None:
        actual = value_and_gradient(lambda z: F.soft_bootstrapping(z, eps), batch.logits)
        assert_equal(actual, oracle_bootstrapping(batch.logits, eps))

    @pytest.mark.parametrize("extreme", [1e3, 1e4])
    def test_certain_predictions_without_addend(self, extreme: float) -> None:
        values, gradient = value_and_gradient(lambda z: F.soft_bootstrapping(z, 0.0), np.array([[extreme, -extreme]]))
        assert values == 0.0
        assert not gradient.any()

    def test_gradcheck(self) -> None:
        leaf = torch.tensor(moderate().logits, requires_grad=True)
        assert gradcheck(F.soft_bootstrapping, leaf)


class TestDynamicsAwareLoss:
    @given(batches, st.sampled_from([0.4, 1.0, 1.5]), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1e-6, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, q: float, lam: float, eps: float) -> None:
        labels, log_k = torch.tensor(batch.labels), np.log(batch.logits.shape[1])
        actual = value_and_gradient(lambda z: F.dynamics_aware_loss(z, labels, q, lam, eps), batch.logits)
        fit = oracle_gce(batch.logits, batch.labels, q, eps)
        entropy = oracle_bootstrapping(batch.logits, eps)
        assert_equal(actual, tuple(f + lam / (q * log_k) * e for f, e in zip(fit, entropy, strict=True)))

    @given(st.integers(2, 20), st.sampled_from([0.5, 1.0, 1.5]))
    @quick
    def test_uniform_prediction_has_both_terms_at_their_scale(self, num_classes: int, q: float) -> None:
        losses = F.dynamics_aware_loss(torch.zeros(1, num_classes, dtype=torch.float64), torch.tensor([0]), q, 0.5, 0.0)
        np.testing.assert_allclose(losses.item(), (1 - num_classes**-q) / q + 0.5 / q, **close)

    @given(batches)
    @quick
    def test_exponent_zero_without_bootstrapping_is_floored_cross_entropy(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.dynamics_aware_loss(z, labels, 0.0), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 1e-6))


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


class TestEarlyLearningRegularization:
    @given(batches, st.sampled_from(["one_hot", "soft"]), st.sampled_from([0.0, 3.0]), st.sampled_from([1e-4, 0.05]))
    @quick
    def test_oracle(self, batch: Batch, kind: str, lam: float, eps: float) -> None:
        target, history = getattr(batch, kind), torch.tensor(batch.history)
        given_target = torch.tensor(target if kind == "soft" else batch.labels)
        actual = value_and_gradient(
            lambda z: F.early_learning_regularization(z, given_target, history, lam, eps), batch.logits
        )
        assert_equal(actual, oracle_elr(batch.logits, target, batch.history, lam, eps))

    @pytest.mark.parametrize("extreme", [1e3, 1e4])
    def test_certain_prediction_that_equals_its_average(self, extreme: float) -> None:
        logits, labels, history = np.array([[extreme, -extreme]]), torch.tensor([0]), torch.tensor([[1.0, 0.0]])
        values, gradient = value_and_gradient(
            lambda z: F.early_learning_regularization(z, labels, history, 3.0), logits
        )
        np.testing.assert_allclose(values, 3.0 * np.log(1e-4), **close)
        assert not gradient.any()

    def test_regulariser_rewards_agreement(self) -> None:
        logits, label = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]), torch.tensor([1, 1, 1])
        history = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.9, 0.0]])
        without, some, much = F.early_learning_regularization(logits, label, history, 1.0)
        assert torch.isclose(without, F.cross_entropy(logits, label)[0])
        assert much < some < without

    def test_history_gets_no_gradient(self) -> None:
        batch = moderate()
        history = torch.tensor(batch.history, requires_grad=True)
        logits = torch.tensor(batch.logits, requires_grad=True)
        F.early_learning_regularization(logits, torch.tensor(batch.labels), history, 3.0).sum().backward()
        assert history.grad is None

    def test_half_precision_history(self) -> None:
        batch = moderate()
        logits, labels, history = torch.tensor(batch.logits), torch.tensor(batch.labels), torch.tensor(batch.history)
        half = F.early_learning_regularization(logits, labels, history.half(), 3.0)
        assert half.dtype == torch.float64
        assert torch.equal(half, F.early_learning_regularization(logits, labels, history.half().double(), 3.0))

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, history = torch.tensor(batch.labels), torch.tensor(batch.history)
        leaf = torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.early_learning_regularization(z, labels, history, 3.0), leaf)


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


class TestNormalizedNegativeCrossEntropy:
    @given(batches, st.sampled_from([1e-7, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, eps: float) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_negative_cross_entropy(z, labels, eps), batch.logits)
        assert_equal(actual, oracle_nnce(batch.logits, batch.labels, eps))

    @given(batches)
    @quick
    def test_sums_to_one_less_than_the_number_of_labels(self, batch: Batch) -> None:
        assert_sum_over_labels(F.normalized_negative_cross_entropy, batch, batch.logits.shape[1] - 1)

    def test_extremes_by_hand(self) -> None:
        logits, labels = np.array([[1e4, -1e4, 0.0]] * 3), torch.tensor([0, 1, 2])
        values, gradient = value_and_gradient(lambda z: F.normalized_negative_cross_entropy(z, labels), logits)
        assert values.tolist() == [0.0, 1.0, 1.0]
        assert not gradient.any()

    def test_label_below_the_floor_teaches_nothing(self) -> None:
        logits, labels = np.array([[-17.0, 0.0, -1.0], [-15.0, 0.0, -1.0]]), torch.tensor([0, 0])  # 3e-8 and 2e-7
        values, gradient = value_and_gradient(lambda z: F.normalized_negative_cross_entropy(z, labels), logits)
        assert values[0] == 1.0
        assert not gradient[0].any()
        assert gradient[1].all()

    @pytest.mark.parametrize("num_classes", [2, 10, 1000])
    def test_largest_floor_leaves_a_sum_to_divide_by(self, num_classes: int) -> None:
        logits, labels = np.zeros((1, num_classes)), torch.tensor([1])
        values, gradient = value_and_gradient(
            lambda z: F.normalized_negative_cross_entropy(z, labels, 0.5 / num_classes), logits
        )
        np.testing.assert_allclose(values, 1 - 1 / num_classes, **close)
        expected = oracle_nnce(logits, np.array([1]), 0.5 / num_classes)[1]
        np.testing.assert_allclose(gradient, expected, **close)

    def test_gradcheck(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.normalized_negative_cross_entropy(z, labels), leaf)


class TestActiveNegativeLoss:
    @given(batches, st.sampled_from([(5.0, 5.0), (10.0, 1.0), (0.0, 2.0)]))
    @quick
    def test_oracle(self, batch: Batch, weights: tuple[float, float]) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.active_negative_loss(z, labels, *weights, base="ce"), batch.logits)
        active, negative = oracle_nce(batch.logits, batch.labels), oracle_nnce(batch.logits, batch.labels, 1e-7)
        assert_equal(actual, tuple(weights[0] * a + weights[1] * n for a, n in zip(active, negative, strict=True)))


class TestAbsoluteSum:
    @given(
        st.lists(st.sampled_from([(), (0,), (5,), (3, 4), (2, 3, 2, 2)]), min_size=1, max_size=6), st.integers(0, 1000)
    )
    @quick
    def test_oracle(self, shapes: list[tuple[int, ...]], seed: int) -> None:
        draw = np.random.default_rng(seed)
        arrays = [np.asarray(draw.standard_normal(shape)) for shape in shapes]
        leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
        value = F.absolute_sum(leaves)
        value.backward()
        np.testing.assert_allclose(value.item(), sum(np.abs(array).sum() for array in arrays), rtol=1e-13)
        for leaf, array in zip(leaves, arrays, strict=True):
            assert leaf.grad is not None
            np.testing.assert_array_equal(leaf.grad.numpy(), np.sign(array))

    def test_gradient_at_zero_is_zero(self) -> None:
        leaf = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
        (5.0 * F.absolute_sum([leaf])).backward()
        assert leaf.grad is not None
        assert leaf.grad.tolist() == [-5.0, 0.0, 5.0]

    def test_float32_loses_no_digits_over_many_weights(self) -> None:
        weights = 0.02 * np.random.default_rng(0).standard_normal(2**21, dtype=np.float32)
        value = F.absolute_sum([torch.tensor(weights)])
        np.testing.assert_allclose(value.item(), np.abs(weights.astype(np.float64)).sum(), rtol=1e-12)

    def test_any_dtype_and_layout_in_one_walk(self) -> None:
        generator = torch.Generator().manual_seed(0)
        tensors = [
            torch.randn(300, generator=generator).bfloat16().requires_grad_(),
            torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last).requires_grad_(),
            torch.randn(3, 5, generator=generator).half(),
            torch.randn(4, 3, generator=generator).double().T.requires_grad_(),
        ]
        value = F.absolute_sum(tensor for tensor in tensors)
        value.backward()
        expected = sum(np.abs(tensor.detach().double().numpy()).sum() for tensor in tensors)
        np.testing.assert_allclose(value.item(), expected, rtol=1e-13)
        for tensor in tensors:
            if tensor.requires_grad:
                assert tensor.grad is not None
                assert tensor.grad.dtype == tensor.dtype
                assert torch.equal(tensor.grad, tensor.detach().sign())


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda z: F.cross_entropy(z, labels_of(z)),
    "cross_entropy_soft": lambda z: F.cross_entropy(z, torch.full_like(z, 0.25)),
    "generalized_cross_entropy": lambda z: F.generalized_cross_entropy(z, labels_of(z)),
    "generalized_cross_entropy_no_floor": lambda z: F.generalized_cross_entropy(z, labels_of(z), 0.1, 0.0),
    "soft_bootstrapping": F.soft_bootstrapping,
    "dynamics_aware_loss": lambda z: F.dynamics_aware_loss(z, labels_of(z), 1.2, 0.5),
    "noise_attention": lambda z: F.noise_attention(z, F.one_hot(labels_of(z), z.shape[1]), z[:, 0], 0.5, 0.1),
    "early_learning": lambda z: F.early_learning_regularization(z, labels_of(z), torch.full_like(z, 0.25), 3.0),
    "mean_absolute_error": lambda z: F.mean_absolute_error(z, labels_of(z)),
    "normalized_cross_entropy": lambda z: F.normalized_cross_entropy(z, labels_of(z)),
    "reverse_cross_entropy": lambda z: F.reverse_cross_entropy(z, labels_of(z)),
    "reverse_cross_entropy_soft": lambda z: F.reverse_cross_entropy(z, torch.full_like(z, 0.25)),
    "symmetric_cross_entropy": lambda z: F.symmetric_cross_entropy(z, labels_of(z), 0.1, 1.0),
    "normalized_negative_cross_entropy": lambda z: F.normalized_negative_cross_entropy(z, labels_of(z)),
    "active_negative_loss": lambda z: F.active_negative_loss(z, labels_of(z), 5.0, 5.0),
}
BOUNDED = {
    "mean_absolute_error": 1.0,
    "normalized_cross_entropy": 1.0,
    "reverse_cross_entropy": 9.22,
    "normalized_negative_cross_entropy": 1.0,
    "active_negative_loss": 10.0,
}


def labels_of(logits: Tensor) -> Tensor:
    return torch.arange(len(logits)) % logits.shape[1]


def test_result_has_the_dtype_of_the_logits_whatever_the_others_have() -> None:
    batch = moderate()
    soft, history, attention = map(torch.tensor, (batch.soft, batch.history, batch.attention))
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor(batch.logits, dtype=dtype)
        other = torch.float64 if dtype == torch.float32 else torch.float32
        target = soft.to(other)
        assert F.cross_entropy(logits, target).dtype == dtype
        assert F.reverse_cross_entropy(logits, target).dtype == dtype
        assert F.noise_attention(logits, target, attention.to(other), 0.5, 0.1).dtype == dtype
        assert F.early_learning_regularization(logits, target, history.to(other), 3.0).dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name: str, scale: float, dtype: torch.dtype) -> None:
    logits = (scale * torch.linspace(-1, 1, 28).sin().reshape(7, 4)).to(dtype).requires_grad_()
    losses = LOSSES[name](logits)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()
    assert torch.equal(losses, LOSSES[name](logits.detach().float()))


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_bounded_losses_are_finite_for_every_finite_logit(name: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest, -largest, 1e4, -1e4, 0.0], dtype=dtype)
    logits = torch.cartesian_prod(values, values, values).requires_grad_()
    losses = LOSSES[name](logits)
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (losses >= 0).all()
    assert (losses <= BOUNDED[name]).all()
