from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import JointOptimization
from tests.losses.numpy_oracle import CLASSES, TARGET, epochs, softmax

LOGITS, OTHER = epochs(2)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (1.2, 0.0), (0.0, 0.8)])
def test_formula(soft: bool, alpha: float, beta: float) -> None:
    p, rows = softmax(LOGITS), softmax(OTHER) if soft else np.eye(CLASSES)[TARGET]
    prior = (np.log(1 / CLASSES / p.mean(0)) / CLASSES).sum()
    each = -(rows * np.log(p)).sum(1) + alpha * prior - beta * (p * np.log(p)).sum(1)
    target = torch.tensor(rows) if soft else TARGET
    for reduction, wanted in (("mean", each.mean()), ("sum", each.sum()), ("none", each)):
        loss = JointOptimization(alpha, beta, reduction)
        np.testing.assert_allclose(loss(torch.tensor(LOGITS), target), wanted, rtol=1e-10)


def test_gradient_through_all_terms() -> None:
    leaf = torch.tensor(LOGITS, requires_grad=True)
    assert gradcheck(lambda z: JointOptimization(1.2, 0.8)(z, TARGET), leaf)


def test_defaults_and_refusals() -> None:
    loss = JointOptimization()
    assert (loss.alpha, loss.beta, loss.reduction, loss.requires, loss.soft_targets) == (1.0, 0.5, "mean", (), True)
    for name in ("alpha", "beta"):
        for value in (-0.1, math.inf, math.nan):
            with pytest.raises(NoisyLabelError) as caught:
                JointOptimization(**{name: value})
            wanted = f"Expected argument `{name}` to be a finite float >= 0, but got {value!r}."
            assert str(caught.value) == wanted
