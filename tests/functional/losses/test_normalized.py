from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    assert_equal,
    assert_sum_over_labels,
    batches,
    close,
    moderate,
    oracle_nce,
    quick,
    value_and_gradient,
)


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
