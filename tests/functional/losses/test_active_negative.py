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
