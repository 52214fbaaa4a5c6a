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
    numpy_log_softmax,
    numpy_softmax,
    quick,
    value_and_gradient,
)


def oracle(logits: Array, labels: Array, eps: float, alpha: float) -> tuple[Array, Array]:
    """``(1 - p_a) CE_K - alpha log(1 - p_a)``, with p_a = 1 - eps where it is above."""
    p, log_first = numpy_softmax(logits), numpy_log_softmax(logits[:, :-1])
    first, rows = np.exp(log_first), np.eye(logits.shape[1] - 1)[labels]
    entropy = -(rows * log_first).sum(1)
    raw = p[:, :-1].sum(1)
    rest = np.maximum(raw, eps)
    by_rest = (entropy - alpha / rest) * inside(raw, eps, 1)
    gradient = np.zeros_like(p)
    gradient[:, :-1] = rest[:, None] * (first - rows)
    gradient += by_rest[:, None] * raw[:, None] * (np.pad(first, ((0, 0), (0, 1))) - p)
    return rest * entropy - alpha * np.log(rest), gradient


class TestAbstentionTerms:
    @given(batches, st.sampled_from([1e-7, 1e-2]), st.sampled_from([0.0, 0.3]))
    @quick
    def test_oracle(self, batch: Batch, eps: float, alpha: float) -> None:
        logits = np.concatenate([batch.logits, batch.attention[:, None]], 1)

        def total(z: torch.Tensor) -> torch.Tensor:
            weighted, price = F.abstention_terms(z, torch.tensor(batch.labels), eps)
            return weighted + alpha * price

        assert_equal(value_and_gradient(total, logits), oracle(logits, batch.labels, eps, alpha))

    def test_gradcheck(self) -> None:
        batch = moderate(num_classes=5)
        leaf, labels = torch.tensor(batch.logits, requires_grad=True), torch.tensor([0, 3, 2])
        assert gradcheck(lambda z: F.abstention_terms(z, labels), leaf)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 6e4]], dtype=dtype, requires_grad=True)
        weighted, price = F.abstention_terms(logits, torch.tensor([1, 0]))
        (weighted + price).sum().backward()
        torch.testing.assert_close(price.detach(), torch.tensor([0.0, -np.log(1e-7)]).float())
        assert weighted.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
