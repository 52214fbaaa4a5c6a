from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import DeterminantMutualInformation
from tests.losses.numpy_oracle import softmax

LOGITS = 2 * np.random.default_rng(0).standard_normal((9, 3))
LABELS = torch.arange(9) % 3


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("eps", [1e-3, 1e-6])
def test_formula(average: bool, eps: float) -> None:
    joint = np.eye(3)[LABELS].T @ softmax(LOGITS) / (9 if average else 1)
    expected = -np.log(abs(np.linalg.det(joint)) + eps)
    for reduction, wanted in (("mean", expected), ("sum", 9 * expected)):
        loss = DeterminantMutualInformation(eps, average, reduction)
        np.testing.assert_allclose(loss(torch.tensor(LOGITS), LABELS), wanted, rtol=1e-10)


def test_defaults_and_refusals() -> None:
    loss = DeterminantMutualInformation()
    assert (loss.eps, loss.average, loss.reduction, loss.requires, loss.soft_targets) == (
        1e-3,
        False,
        "mean",
        (),
        False,
    )
    with pytest.raises(NoisyLabelError, match=r"^DeterminantMutualInformation expects int64 labels \(B,\) for"):
        loss(torch.zeros(3, 3), torch.eye(3))
    for eps in (0.0, math.inf, math.nan):
        with pytest.raises(NoisyLabelError, match=r"^Expected argument `eps` to be a finite float > 0, but got"):
            DeterminantMutualInformation(eps)
