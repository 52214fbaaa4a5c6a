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
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle(
    logits: Array, label_logits: Array, labels: Array, alpha: float, beta: float, form: str
) -> tuple[Array, Array, Array]:
    p, log_p, classes = numpy_softmax(logits), numpy_log_softmax(logits), logits.shape[1]
    d, log_d, rows = numpy_softmax(label_logits), numpy_log_softmax(label_logits), np.eye(classes)[labels]
    c = classes if form == "code" else 1
    values = ((p * (log_p - log_d)).sum(1) - beta * (p * log_p).sum(1)) / c
    by_z = through_softmax(p, (log_p - log_d - beta * log_p) / c)
    by_l = (d - p) / c
    if form == "code":
        twice = numpy_softmax(d)
        values -= alpha * np.log((rows * twice).sum(1))
        by_l += through_softmax(d, alpha * (twice - rows))
    else:
        values -= alpha * (rows * log_d).sum(1)
        by_l += alpha * (d - rows)
    return values, by_z, by_l


class TestPencilLoss:
    @given(batches, st.sampled_from([0.0, 0.4]), st.sampled_from([0.0, 0.1]), st.sampled_from(["code", "paper"]))
    @quick
    def test_oracle(self, batch: Batch, alpha: float, beta: float, form: str) -> None:
        label_logits = 10 * batch.one_hot + batch.soft
        leaf = torch.tensor(label_logits, requires_grad=True)
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.pencil_loss(z, labels, leaf, alpha, beta, form), batch.logits)
        assert leaf.grad is not None
        expected = oracle(batch.logits, label_logits, batch.labels, alpha, beta, form)
        assert_equal((*actual, leaf.grad.numpy()), expected)

    @given(batches)
    @quick
    def test_divergence(self, batch: Batch) -> None:
        label_logits = torch.tensor(3 * batch.soft)
        actual = value_and_gradient(lambda z: F.label_divergence(z, label_logits), batch.logits)
        assert_equal(actual, oracle(batch.logits, 3 * batch.soft, batch.labels, 0.0, 0.0, "paper")[:2])

    @pytest.mark.parametrize("form", ["code", "paper"])
    def test_gradcheck(self, form: str) -> None:
        batch = moderate()
        leaves = [torch.tensor(values, requires_grad=True) for values in (batch.logits, batch.soft)]
        labels = torch.tensor(batch.labels)
        assert gradcheck(lambda z, label: F.pencil_loss(z, labels, label, 0.4, 0.1, form), leaves)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        losses = F.pencil_loss(logits, torch.tensor([1, 0]), 10 * torch.eye(3)[[1, 0]].double(), 0.4, 0.1)
        losses.sum().backward()
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
