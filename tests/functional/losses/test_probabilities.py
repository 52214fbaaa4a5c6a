from __future__ import annotations

import numpy as np
import torch
from hypothesis import given

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    batches,
    close,
    numpy_softmax,
    quick,
)


class TestOneHot:
    def test_rows(self) -> None:
        rows = F.one_hot(torch.tensor([2, 0]), 3)
        assert rows.dtype == torch.float32
        assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]

    def test_floor_is_not_renormalized(self) -> None:
        rows = F.one_hot(torch.tensor([1]), 3, floor=1e-4, dtype=torch.float64)
        assert rows.tolist() == [[1e-4, 1.0, 1e-4]]


class TestClippedSoftmax:
    @given(batches)
    @quick
    def test_oracle(self, batch: Batch) -> None:
        clipped = F.clipped_softmax(torch.tensor(batch.logits), 0.01).numpy()
        np.testing.assert_allclose(clipped, np.clip(numpy_softmax(batch.logits), 0.01, 0.99), **close)
