from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    assert_sum_over_labels,
    batches,
    close,
    inside,
    moderate,
    numpy_log_softmax,
    numpy_softmax,
    oracle_nce,
    quick,
    rest_of,
    value_and_gradient,
)


def oracle_nnce(logits: Array, target: NDArray[np.int64], eps: float) -> tuple[Array, Array]:
    probability, log_probability = numpy_softmax(logits), numpy_log_softmax(logits)
    rows = np.eye(logits.shape[1])[target]
    remainder = -np.log(eps) + np.maximum(log_probability, np.log(eps))
    total = remainder.sum(1, keepdims=True)
    share = (rows * remainder).sum(1, keepdims=True) / total
    by_log = (share - rows) / total * inside(log_probability, np.log(eps), 0)
    return 1 - share[:, 0], by_log - probability * by_log.sum(1, keepdims=True)


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


def oracle_nnfl(
    logits: Array, target: NDArray[np.int64], gamma: float, eps: float, detach: bool
) -> tuple[Array, Array]:
    log_probability, rows = numpy_log_softmax(logits), np.eye(logits.shape[1])[target]
    clipped = np.maximum(log_probability, np.log(eps))
    rest = np.where(log_probability >= np.log(eps), rest_of(numpy_softmax(logits)), 1 - eps)
    focal = -(rest**gamma) * clipped
    by_log = -(rest**gamma)
    if not detach:
        steep = np.divide(rest**gamma, rest, out=np.zeros_like(rest), where=rest > 1e-300)
        by_log = by_log + gamma * steep * np.exp(clipped) * clipped
    remainder = -((1 - eps) ** gamma) * np.log(eps) - focal
    total = remainder.sum(1, keepdims=True)
    share = (rows * remainder).sum(1, keepdims=True) / total
    gradient = (rows - share) / total * by_log * inside(log_probability, np.log(eps), 0)
    return 1 - share[:, 0], gradient - numpy_softmax(logits) * gradient.sum(1, keepdims=True)


class TestNormalizedNegativeFocalLoss:
    @given(batches, st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([1e-7, 1e-2]), st.booleans())
    @quick
    def test_oracle(self, batch: Batch, gamma: float, eps: float, detach: bool) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(
            lambda z: F.normalized_negative_focal_loss(z, labels, gamma, eps, detach), batch.logits
        )
        assert_equal(actual, oracle_nnfl(batch.logits, batch.labels, gamma, eps, detach))

    @given(batches)
    @quick
    def test_sums_to_one_less_than_the_number_of_labels(self, batch: Batch) -> None:
        assert_sum_over_labels(F.normalized_negative_focal_loss, batch, batch.logits.shape[1] - 1)

    def test_exponent_zero_is_that_of_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.normalized_negative_focal_loss(z, labels, 0.0), batch.logits)
        assert_equal(actual, oracle_nnce(batch.logits, batch.labels, 1e-7))

    @pytest.mark.parametrize("detach", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_label_below_the_floor_teaches_nothing(self, dtype: torch.dtype, detach: bool) -> None:
        logits = torch.tensor([[-17.0, 0.0, -1.0], [-15.0, 0.0, -1.0]], dtype=dtype, requires_grad=True)
        losses = F.normalized_negative_focal_loss(logits, torch.tensor([0, 0]), detach=detach)
        losses.sum().backward()
        assert losses[0] == 1.0
        assert logits.grad is not None
        assert not logits.grad[0].any()
        assert logits.grad[1].all()

    @pytest.mark.parametrize("num_classes", [2, 10, 1000])
    def test_largest_floor_leaves_a_sum_to_divide_by(self, num_classes: int) -> None:
        logits, labels = np.zeros((1, num_classes)), torch.tensor([1])
        actual = value_and_gradient(
            lambda z: F.normalized_negative_focal_loss(z, labels, eps=0.5 / num_classes), logits
        )
        assert_equal(actual, oracle_nnfl(logits, np.array([1]), 0.5, 0.5 / num_classes, True))

    def test_factors_are_constants_unless_asked(self) -> None:
        batch = moderate()
        labels, leaf = torch.tensor(batch.labels), torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.normalized_negative_focal_loss(z, labels, 0.5, detach=False), leaf)
        assert not gradcheck(lambda z: F.normalized_negative_focal_loss(z, labels, 0.5), leaf, raise_exception=False)


class TestActiveNegativeLoss:
    @given(batches, st.sampled_from([(5.0, 5.0), (10.0, 1.0), (0.0, 2.0)]))
    @quick
    def test_oracle(self, batch: Batch, weights: tuple[float, float]) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.active_negative_loss(z, labels, *weights, base="ce"), batch.logits)
        active, negative = oracle_nce(batch.logits, batch.labels), oracle_nnce(batch.logits, batch.labels, 1e-7)
        assert_equal(actual, tuple(weights[0] * a + weights[1] * n for a, n in zip(active, negative, strict=True)))

    @given(batches, st.sampled_from([(5.0, 5.0), (10.0, 1.0), (0.0, 2.0)]))
    @quick
    def test_focal_base_has_gamma_one_half_and_constant_factors(
        self, batch: Batch, weights: tuple[float, float]
    ) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.active_negative_loss(z, labels, *weights, base="focal"), batch.logits)
        rest, log_probability = rest_of(numpy_softmax(batch.logits)), numpy_log_softmax(batch.logits)
        focal = -np.sqrt(rest) * log_probability
        total = focal.sum(1, keepdims=True)
        share = (batch.one_hot * focal).sum(1, keepdims=True) / total
        by_log = (batch.one_hot - share) / total * -np.sqrt(rest)
        active = share[:, 0], by_log - numpy_softmax(batch.logits) * by_log.sum(1, keepdims=True)
        negative = oracle_nnfl(batch.logits, batch.labels, 0.5, 1e-7, True)
        assert_equal(actual, tuple(weights[0] * a + weights[1] * n for a, n in zip(active, negative, strict=True)))


class TestEntropyRegularization:
    @given(st.integers(1, 5), st.integers(2, 20), st.integers(0, 1000), st.sampled_from([1e-7, 0.05]))
    @quick
    def test_oracle(self, size: int, num_classes: int, seed: int, eps: float) -> None:
        mean = np.random.default_rng(seed).dirichlet(np.full(num_classes, 0.3), size).mean(0)
        leaf = torch.tensor(mean, requires_grad=True)
        value = F.entropy_regularization(leaf, eps)
        value.backward()
        clipped = np.maximum(mean, eps)
        np.testing.assert_allclose(value.item(), np.log(num_classes) + (clipped * np.log(clipped)).sum(), **close)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), (np.log(clipped) + 1) * (mean >= eps), **close)

    @pytest.mark.parametrize("num_classes", [2, 10])
    def test_ends_of_its_range(self, num_classes: int) -> None:
        uniform = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
        assert F.entropy_regularization(uniform).item() == pytest.approx(0.0, abs=1e-12)
        certain = torch.eye(num_classes, dtype=torch.float64)[0].requires_grad_()
        value = F.entropy_regularization(certain)
        value.backward()
        assert value.item() == pytest.approx(np.log(num_classes), abs=1e-4)
        assert certain.grad is not None
        assert certain.grad.isfinite().all()


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
