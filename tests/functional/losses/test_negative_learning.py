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
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle(logits: Array, negatives: Array, eps: float) -> tuple[Array, Array]:
    p, rows = numpy_softmax(logits), np.arange(len(logits))[:, None]
    rest = 1 - p[rows, negatives]
    by_p = np.zeros_like(p)
    np.add.at(by_p, (rows, negatives), inside(rest, eps, 1) / np.clip(rest, eps, 1))
    return -np.log(np.clip(rest, eps, 1)).sum(1), through_softmax(p, by_p)


class TestNegativeLearning:
    @given(batches, st.integers(1, 30), st.sampled_from([1e-5, 0.1]))
    @quick
    def test_oracle(self, batch: Batch, count: int, eps: float) -> None:
        size, classes = batch.logits.shape
        negatives = np.random.default_rng(0).integers(classes, size=(size, count))
        actual = value_and_gradient(lambda z: F.negative_learning(z, torch.tensor(negatives), eps), batch.logits)
        assert_equal(actual, oracle(batch.logits, negatives, eps))

    def test_gradcheck(self) -> None:
        leaf = torch.tensor(moderate().logits, requires_grad=True)
        assert gradcheck(lambda z: F.negative_learning(z, torch.tensor([[0, 0, 3], [1, 2, 3], [2, 2, 2]])), leaf)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        losses = F.negative_learning(logits, torch.tensor([[0, 1], [2, 2]]))
        losses.sum().backward()
        torch.testing.assert_close(losses.detach(), torch.tensor([np.log(1e5), 2 * np.log(1.5)]).float())
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class TestDrawNegatives:
    def test_uniform_over_the_other_classes(self) -> None:
        index = torch.arange(20000)
        target = index % 5
        drawn = F.draw_negatives(target, 5, 3, 7, 0, index)
        assert drawn.shape == (20000, 3)
        assert drawn.dtype == torch.int64
        counts = torch.stack([torch.bincount(drawn[target == k].flatten(), minlength=5) for k in range(5)])
        assert (counts.diagonal() == 0).all()
        expected = 20000 * 3 / 5 / 4
        others = counts[~torch.eye(5, dtype=torch.bool)]
        assert ((others - expected).abs() < 5 * expected**0.5).all()

    def test_columns_are_independent_and_keys_matter(self) -> None:
        index, target = torch.arange(4000), torch.zeros(4000, dtype=torch.int64)
        first, second = F.draw_negatives(target, 5, 2, 7, index).unbind(1)
        assert (first == second).double().mean().item() == pytest.approx(0.25, abs=0.04)
        other = F.draw_negatives(target, 5, 1, 8, index)[:, 0]
        assert (first == other).double().mean().item() == pytest.approx(0.25, abs=0.04)

    def test_a_function_of_the_keys_alone(self) -> None:
        index, target = torch.tensor([5, 1, 9]), torch.tensor([0, 1, 2])
        whole = F.draw_negatives(target, 4, 6, 1, 2, index)
        for row in range(3):
            assert torch.equal(F.draw_negatives(target[row : row + 1], 4, 6, 1, 2, index[row : row + 1])[0], whole[row])
        assert torch.equal(F.draw_negatives(target, 4, 2, 1, 2, index), whole[:, :2])

    def test_two_classes(self) -> None:
        target = torch.tensor([0, 1])
        assert F.draw_negatives(target, 2, 4, torch.arange(2)).tolist() == [[1] * 4, [0] * 4]
