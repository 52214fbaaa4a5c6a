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
    close,
    moderate,
    numpy_softmax,
    quick,
    through_softmax,
    value_and_gradient,
)


def oracle(logits: Array, labels: Array, peers: Array, alpha: float, eps: float) -> tuple[Array, Array]:
    p, rows = numpy_softmax(logits), np.arange(len(logits))
    values, by_p = np.zeros(len(logits)), np.zeros_like(p)
    for classes, weight in ((labels, 1.0), (peers, -alpha)):
        values -= weight * np.log(p[rows, classes] + eps)
        by_p[rows, classes] -= weight / (p[rows, classes] + eps)
    return values, through_softmax(p, by_p)


class TestPeerLoss:
    @given(batches, st.sampled_from([0.0, 1.0, 5.0]), st.sampled_from([1e-5, 0.1]))
    @quick
    def test_oracle(self, batch: Batch, alpha: float, eps: float) -> None:
        labels, peers = batch.labels, np.roll(batch.labels, 1)
        actual = value_and_gradient(
            lambda z: F.peer_loss(z, torch.tensor(labels), torch.tensor(peers), alpha, eps), batch.logits
        )
        assert_equal(actual, oracle(batch.logits, labels, peers, alpha, eps))

    def test_without_eps(self) -> None:
        batch = moderate()
        logits, labels, peers = torch.tensor(batch.logits), torch.tensor(batch.labels), torch.tensor([3, 2, 1])
        expected = F.cross_entropy(logits, labels) - 2.0 * F.cross_entropy(logits, peers)
        torch.testing.assert_close(F.peer_loss(logits, labels, peers, 2.0, eps=0.0), expected, **close)

    def test_gradcheck(self) -> None:
        batch = moderate()
        leaf, labels = torch.tensor(batch.logits, requires_grad=True), torch.tensor(batch.labels)
        assert gradcheck(lambda z: F.peer_loss(z, labels, torch.tensor([3, 2, 1]), 2.0), leaf)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        logits = torch.tensor([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
        losses = F.peer_loss(logits, torch.tensor([1, 0]), torch.tensor([0, 1]), 1.0)
        losses.sum().backward()
        torch.testing.assert_close(losses.detach(), torch.tensor([-np.log(1e-5), 0.0]).float(), rtol=1e-5, atol=2e-5)
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class TestShuffledLabels:
    @given(st.integers(1, 12), st.integers(0, 1000))
    @quick
    def test_each_label_is_lent_once_and_never_to_its_owner(self, size: int, seed: int) -> None:
        index = torch.arange(size) * 7 % 1000
        lent = F.shuffled_labels(torch.arange(size), index, seed, 3)
        assert sorted(lent.tolist()) == list(range(size))
        assert size == 1 or not (lent == torch.arange(size)).any()

    def test_one_ring(self) -> None:
        lent = F.shuffled_labels(torch.arange(9), torch.arange(9), 0).tolist()
        at, seen = 0, []
        for _ in range(9):
            seen.append(at)
            at = lent[at]
        assert sorted(seen) == list(range(9))

    def test_does_not_depend_on_the_order_in_the_batch(self) -> None:
        index, target = torch.tensor([5, 1, 9, 4]), torch.tensor([0, 1, 2, 3])
        lent, order = F.shuffled_labels(target, index, 1, 2), torch.tensor([2, 0, 3, 1])
        assert torch.equal(F.shuffled_labels(target[order], index[order], 1, 2), lent[order])

    def test_peers_are_uniform(self) -> None:
        index = torch.arange(4)
        lent = torch.stack([F.shuffled_labels(index, index, seed) for seed in range(3000)])
        counts = torch.stack([torch.bincount(column, minlength=4) for column in lent.t()])
        assert ((counts[~torch.eye(4, dtype=torch.bool)] - 1000).abs() < 130).all()
