from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    assert_equal,
    batches,
    moderate,
    numpy_softmax,
    oracle_gce,
    quick,
    value_and_gradient,
)


class TestTruncatedGeneralizedCrossEntropy:
    @given(batches, st.sampled_from([0.1, 0.7, 1.0]), st.sampled_from([0.0, 0.5, 0.9]))
    @quick
    def test_oracle(self, batch: Batch, q: float, k: float) -> None:
        labels, kept = torch.tensor(batch.labels), np.arange(len(batch.labels)) % 3 != 1
        actual = value_and_gradient(
            lambda z: F.truncated_generalized_cross_entropy(z, labels, torch.tensor(kept), q, k), batch.logits
        )
        p_y = numpy_softmax(batch.logits)[np.arange(len(kept)), batch.labels]
        _, gradient = oracle_gce(batch.logits, batch.labels, q, 0.0)
        assert_equal(actual, (kept * (k**q - p_y**q) / q, kept[:, None] * gradient))

    def test_gradcheck(self) -> None:
        batch, kept = moderate(), torch.tensor([1.0, 0.0, 1.0])
        leaf, labels = torch.tensor(batch.logits, requires_grad=True), torch.tensor(batch.labels)
        assert gradcheck(lambda z: F.truncated_generalized_cross_entropy(z, labels, kept), leaf)
