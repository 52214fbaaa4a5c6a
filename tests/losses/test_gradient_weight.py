"""The weight of a sample against the probability of its label, beside the derivatives on paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy import losses as L
from lightning_noisy.losses import gradient_weight
from tests.losses.test_every_loss import KINDS, MAKE
from tests.small import assert_same

P = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
K = 4


def attentive(tau: float) -> nn.Module:
    """Its branch gives tau to features of zero."""
    loss = L.NoiseAttentionLoss(3, lam=0.5)
    assert loss.branch is not None
    nn.init.constant_(loss.branch.bias, math.log(tau / (1 - tau)))
    return loss


LAWS = {
    "CE": (nn.CrossEntropyLoss(), 1 / P),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), 1 / P),
    "GCE": (L.GeneralizedCrossEntropy(0.7), P**-0.3),
    "DAL": (L.DynamicsAwareLoss(1.5, 0.0), P**0.5),
    "MAE": (L.MeanAbsoluteError(), torch.ones_like(P)),
    "TCE": (L.TaylorCrossEntropy(3), 1 + (1 - P) + (1 - P) ** 2),
    "AGCE": (L.AsymmetricGeneralizedCrossEntropy(2.0, 0.5), (2 + P) ** -0.5),
    "focal": (L.FocalLoss(2.0), (1 - P) ** 2 / P - 2 * (1 - P) * P.log()),
    "NAL": (attentive(0.8), 0.8 / (0.8 * P + 0.2)),
    "SAT": (L.SelfAdaptiveTraining(warmup_epochs=5), 1 / P),
    "staged": (L.StagedLoss([nn.CrossEntropyLoss(), L.MeanAbsoluteError()], [0, 3]), 1 / P),
    "abstaining": (L.DeepAbstainingClassifier(5), 1 / P),
}


@pytest.mark.parametrize("name", LAWS)
def test_it_is_the_derivative_on_paper(name: str) -> None:
    loss, expected = LAWS[name]
    torch.testing.assert_close(gradient_weight(loss, P, K), expected, rtol=1e-4, atol=1e-6)


def test_the_rest_is_shared_evenly_and_counts() -> None:
    """Active losses: -log p_y over the sum of all, with its own logarithm for each of the K - 1 others."""

    def value(p: torch.Tensor) -> torch.Tensor:
        return p.log() / (p.log() + (K - 1) * ((1 - p) / (K - 1)).log())

    # z_y moves the others with p_k = (1 - p_y) / (K - 1) as well, so the derivative is that along the path.
    p = P.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(p).sum(), p)
    torch.testing.assert_close(gradient_weight(L.NormalizedCrossEntropy(), P, K), -slope, rtol=1e-4, atol=1e-6)


def test_what_a_loss_is_told_counts() -> None:
    staged = L.StagedLoss([nn.CrossEntropyLoss(), L.MeanAbsoluteError()], [0, 3])
    torch.testing.assert_close(gradient_weight(staged, P, K, epoch=3), torch.ones_like(P))
    features = torch.ones(K, 3, dtype=torch.float64)
    loss: nn.Module = attentive(0.8)
    assert not torch.allclose(gradient_weight(loss, P, K, features=features), gradient_weight(loss, P, K))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_loss_has_one_and_is_left_as_it_was(name: str) -> None:
    loss = MAKE.get(name, KINDS[name])()
    loss.eval()
    before = {key: value for key, value in vars(loss).items() if isinstance(value, int | float | str)}
    weights = {key: value.clone() for key, value in loss.state_dict().items()}
    stream = torch.get_rng_state()
    seen = gradient_weight(loss, P, K)
    assert seen.shape == P.shape
    assert seen.isfinite().all()
    assert seen.abs().max() > 1e-3
    assert_same(gradient_weight(loss, P, K), seen)
    after = {key: value for key, value in vars(loss).items() if key in before}
    assert_same([before, weights, stream], [after, dict(loss.state_dict()), torch.get_rng_state()])
    assert not loss.stores


@pytest.mark.parametrize("wrong", [torch.tensor([0.5, 1.0]), torch.tensor([0.0]), torch.tensor(0.5)])
def test_probabilities_that_are_none_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(NoisyLabelError, match=r"`confidence` to be probabilities \(M,\) in \(0, 1\)"):
        gradient_weight(nn.CrossEntropyLoss(), wrong)
