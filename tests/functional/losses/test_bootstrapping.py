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
    moderate,
    numpy_log_softmax,
    numpy_softmax,
    oracle_bootstrapping,
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle(logits: Array, target: Array, beta: float, mode: str, detach: bool) -> tuple[Array, Array]:
    p, log_p = numpy_softmax(logits), numpy_log_softmax(logits)
    own = p if mode == "soft" else np.eye(logits.shape[1])[logits.argmax(1)]
    mixture = beta * target + (1 - beta) * own
    gradient = p * mixture.sum(1, keepdims=True) - mixture
    if mode == "soft" and not detach:
        gradient += through_softmax(p, -(1 - beta) * log_p)
    return -(mixture * log_p).sum(1), gradient


class TestBootstrapCrossEntropy:
    @given(
        batches,
        st.sampled_from([0.0, 0.8, 0.95, 1.0]),
        st.sampled_from(["soft", "hard"]),
        st.booleans(),
        st.sampled_from(["one_hot", "soft"]),
    )
    @quick
    def test_oracle(self, batch: Batch, beta: float, mode: str, detach: bool, kind: str) -> None:
        target = torch.tensor(batch.soft if kind == "soft" else batch.labels)
        actual = value_and_gradient(lambda z: F.bootstrap_cross_entropy(z, target, beta, mode, detach), batch.logits)
        assert_equal(actual, oracle(batch.logits, getattr(batch, kind), beta, mode, detach))

    @pytest.mark.parametrize("mode", ["soft", "hard"])
    def test_gradcheck(self, mode: str) -> None:
        batch = moderate()
        leaf = torch.tensor(batch.logits, requires_grad=True)
        assert gradcheck(lambda z: F.bootstrap_cross_entropy(z, torch.tensor(batch.labels), 0.8, mode), leaf)

    @pytest.mark.parametrize("mode", ["soft", "hard"])
    @pytest.mark.parametrize("detach", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, mode: str, detach: bool, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        losses = F.bootstrap_cross_entropy(logits, torch.tensor([1, 0]), 0.8, mode, detach)
        losses.sum().backward()
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


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
