from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    assert_equal,
    batches,
    oracle_elr,
    oracle_gce,
    quick,
    value_and_gradient,
)


class TestCrossEntropy:
    @given(batches)
    @quick
    def test_labels(self, batch: Batch) -> None:
        labels = torch.tensor(batch.labels)
        actual = value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits)
        assert_equal(actual, oracle_gce(batch.logits, batch.labels, 0.0, 0.0))

    @given(batches, st.floats(0.5, 2.0))
    @quick
    def test_distribution_that_need_not_sum_to_one(self, batch: Batch, total: float) -> None:
        target = total * batch.soft
        actual = value_and_gradient(lambda z: F.cross_entropy(z, torch.tensor(target)), batch.logits)
        assert_equal(actual, oracle_elr(batch.logits, target, batch.history, 0.0, 1e-4))

    @given(batches)
    @quick
    def test_one_hot_rows_agree_with_labels(self, batch: Batch) -> None:
        labels, rows = torch.tensor(batch.labels), torch.tensor(batch.one_hot)
        hard = value_and_gradient(lambda z: F.cross_entropy(z, labels), batch.logits)
        assert_equal(value_and_gradient(lambda z: F.cross_entropy(z, rows), batch.logits), hard)
