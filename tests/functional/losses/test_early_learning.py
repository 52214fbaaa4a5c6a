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
    oracle_elr,
    quick,
    value_and_gradient,
)


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

    def test_regularizer_rewards_agreement(self) -> None:
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
