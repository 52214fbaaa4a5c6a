from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    assert_equal,
    batches,
    close,
    oracle_bootstrapping,
    oracle_gce,
    quick,
    value_and_gradient,
)


class TestDynamicsAwareLoss:
    @given(batches, st.sampled_from([0.4, 1.0, 1.5]), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1e-6, 1e-2]))
    @quick
    def test_oracle(self, batch: Batch, q: float, lam: float, eps: float) -> None:
        labels, log_k = torch.tensor(batch.labels), np.log(batch.logits.shape[1])
        actual = value_and_gradient(lambda z: F.dynamics_aware_loss(z, labels, q, lam, eps), batch.logits)
        fit = oracle_gce(batch.logits, batch.labels, q, eps)
        entropy = oracle_bootstrapping(batch.logits, eps)
        assert_equal(actual, tuple(f + lam / (q * log_k) * e for f, e in zip(fit, entropy, strict=True)))

    @given(st.integers(2, 20), st.sampled_from([0.5, 1.0, 1.5]))
    @quick
    def test_uniform_prediction_has_both_terms_at_their_scale(self, num_classes: int, q: float) -> None:
        losses = F.dynamics_aware_loss(torch.zeros(1, num_classes, dtype=torch.float64), torch.tensor([0]), q, 0.5, 0.0)
        np.testing.assert_allclose(losses.item(), (1 - num_classes**-q) / q + 0.5 / q, **close)

    @given(batches)
    @quick
    def test_exponent_zero_without_bootstrapping_is_floored_cross_entropy(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.dynamics_aware_loss(z, labels, 0.0), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 1e-6))
