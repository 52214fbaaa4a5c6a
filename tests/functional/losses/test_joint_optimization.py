from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Batch,
    batches,
    close,
    quick,
)


class TestDivergenceFromUniform:
    @given(batches)
    @quick
    def test_oracle(self, batch: Batch) -> None:
        classes, p = batch.logits.shape[1], np.maximum(batch.soft.mean(0), 1e-300)
        leaf = torch.tensor(p, requires_grad=True)
        value = F.divergence_from_uniform(leaf)
        value.backward()
        np.testing.assert_allclose(value.item(), (np.log(1 / classes / p) / classes).sum(), **close)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), -1 / classes / p, rtol=1e-10)

    def test_uniform_is_the_minimum(self) -> None:
        assert F.divergence_from_uniform(torch.full((4,), 0.25)).item() == pytest.approx(0.0, abs=1e-6)
        assert F.divergence_from_uniform(torch.tensor([0.5, 0.3, 0.1, 0.1])).item() > 0.1

    def test_a_class_that_underflows(self) -> None:
        leaf = torch.tensor([1.0, 0.0], requires_grad=True)
        value = F.divergence_from_uniform(leaf)
        value.backward()
        assert value.isfinite()
        assert leaf.grad is not None
        assert leaf.grad.tolist() == [-0.5, 0.0]
