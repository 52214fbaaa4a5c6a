"""Dtypes of logits and results, half precision and extremes, for every loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import moderate

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda z: F.cross_entropy(z, labels_of(z)),
    "cross_entropy_soft": lambda z: F.cross_entropy(z, torch.full_like(z, 0.25)),
    "generalized_cross_entropy": lambda z: F.generalized_cross_entropy(z, labels_of(z)),
    "generalized_cross_entropy_no_floor": lambda z: F.generalized_cross_entropy(z, labels_of(z), 0.1, 0.0),
    "soft_bootstrapping": F.soft_bootstrapping,
    "dynamics_aware_loss": lambda z: F.dynamics_aware_loss(z, labels_of(z), 1.2, 0.5),
    "noise_attention": lambda z: F.noise_attention(z, F.one_hot(labels_of(z), z.shape[1]), z[:, 0], 0.5, 0.1),
    "early_learning": lambda z: F.early_learning_regularization(z, labels_of(z), torch.full_like(z, 0.25), 3.0),
    "mean_absolute_error": lambda z: F.mean_absolute_error(z, labels_of(z)),
    "normalized_cross_entropy": lambda z: F.normalized_cross_entropy(z, labels_of(z)),
    "reverse_cross_entropy": lambda z: F.reverse_cross_entropy(z, labels_of(z)),
    "reverse_cross_entropy_soft": lambda z: F.reverse_cross_entropy(z, torch.full_like(z, 0.25)),
    "symmetric_cross_entropy": lambda z: F.symmetric_cross_entropy(z, labels_of(z), 0.1, 1.0),
    "normalized_negative_cross_entropy": lambda z: F.normalized_negative_cross_entropy(z, labels_of(z)),
    "active_negative_loss": lambda z: F.active_negative_loss(z, labels_of(z), 5.0, 5.0),
    "active_negative_loss_focal": lambda z: F.active_negative_loss(z, labels_of(z), 5.0, 5.0, "focal"),
    "focal_loss": lambda z: F.focal_loss(z, labels_of(z)),
    "focal_loss_detached": lambda z: F.focal_loss(z, labels_of(z), 2.0, detach=True),
    "taylor_cross_entropy": lambda z: F.taylor_cross_entropy(z, labels_of(z), 3),
    "poly1_cross_entropy": lambda z: F.poly1_cross_entropy(z, labels_of(z), 2.0),
    "normalized_focal_loss": lambda z: F.normalized_focal_loss(z, labels_of(z)),
    "normalized_focal_loss_whole": lambda z: F.normalized_focal_loss(z, labels_of(z), 0.1, detach=False),
    "normalized_generalized": lambda z: F.normalized_generalized_cross_entropy(z, labels_of(z), 0.1),
    "normalized_generalized_no_floor": lambda z: F.normalized_generalized_cross_entropy(z, labels_of(z), 0.7, 0.0),
    "normalized_negative_focal_loss": lambda z: F.normalized_negative_focal_loss(z, labels_of(z)),
    "normalized_negative_focal_loss_whole": lambda z: F.normalized_negative_focal_loss(
        z, labels_of(z), 0.1, detach=False
    ),
    "asymmetric_generalized": lambda z: F.asymmetric_generalized_cross_entropy(z, labels_of(z), 6.0, 1.5),
    "asymmetric_generalized_steep": lambda z: F.asymmetric_generalized_cross_entropy(z, labels_of(z), 1e-5, 0.5),
    "asymmetric_unhinged": lambda z: F.asymmetric_unhinged_loss(z, labels_of(z), 6.3, 1.5),
    "asymmetric_exponential": lambda z: F.asymmetric_exponential_loss(z, labels_of(z), 5.0),
    "sparsity_penalty": lambda z: F.sparsity_penalty(z, 0.1),
    "jensen_shannon": lambda z: F.generalized_jensen_shannon([z], labels_of(z), 0.5),
    "generalized_jensen_shannon": lambda z: F.generalized_jensen_shannon([z, z.flip(1)], labels_of(z), 0.1),
    "view_consistency": lambda z: F.view_consistency([z, z.flip(1)], 0.1),
    "bi_tempered": lambda z: F.bi_tempered_logistic_loss(z, labels_of(z), 0.7, 1.5),
    "bi_tempered_heavy": lambda z: F.bi_tempered_logistic_loss(z, labels_of(z), 0.0, 5.0),
    "bi_tempered_softmax": lambda z: F.bi_tempered_logistic_loss(z, labels_of(z), 0.7, 1.0),
}
BOUNDED = {
    "mean_absolute_error": 1.0,
    "normalized_cross_entropy": 1.0,
    "reverse_cross_entropy": 9.22,
    "normalized_negative_cross_entropy": 1.0,
    "active_negative_loss": 10.0,
    "active_negative_loss_focal": 10.0,
    "taylor_cross_entropy": 11 / 6,
    "normalized_focal_loss": 1.0,
    "normalized_focal_loss_whole": 1.0,
    "normalized_generalized": 1.0,
    "normalized_generalized_no_floor": 1.0,
    "normalized_negative_focal_loss": 1.0,
    "normalized_negative_focal_loss_whole": 1.0,
    "asymmetric_generalized": (7**1.5 - 6**1.5) / 1.5,
    "asymmetric_generalized_steep": 2.0,
    "asymmetric_unhinged": (6.3**1.5 - 5.3**1.5) / 1.5,
    "asymmetric_exponential": 1.0,
    "sparsity_penalty": 3**0.9,
    "jensen_shannon": 2.0,
    "generalized_jensen_shannon": 1.1 / 0.09,
    "view_consistency": 8.0,
    "bi_tempered": 1 / 0.3,
    "bi_tempered_heavy": 1.0,
    "bi_tempered_softmax": 1 / 0.3,
}


def labels_of(logits: Tensor) -> Tensor:
    return torch.arange(len(logits)) % logits.shape[1]


def test_result_has_the_dtype_of_the_logits_whatever_the_others_have() -> None:
    batch = moderate()
    soft, history, attention = map(torch.tensor, (batch.soft, batch.history, batch.attention))
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor(batch.logits, dtype=dtype)
        other = torch.float64 if dtype == torch.float32 else torch.float32
        target = soft.to(other)
        assert F.cross_entropy(logits, target).dtype == dtype
        assert F.reverse_cross_entropy(logits, target).dtype == dtype
        assert F.noise_attention(logits, target, attention.to(other), 0.5, 0.1).dtype == dtype
        assert F.early_learning_regularization(logits, target, history.to(other), 3.0).dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 6e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name: str, scale: float, dtype: torch.dtype) -> None:
    logits = (scale * torch.linspace(-1, 1, 28).sin().reshape(7, 4)).to(dtype).requires_grad_()
    losses = LOSSES[name](logits)
    losses.sum().backward()
    assert logits.grad is not None
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()
    assert torch.equal(losses, LOSSES[name](logits.detach().float()))


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_bounded_losses_are_finite_for_every_finite_logit(name: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest, -largest, 1e4, -1e4, 0.0], dtype=dtype)
    logits = torch.cartesian_prod(values, values, values).requires_grad_()
    losses = LOSSES[name](logits)
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (losses >= -1e-6).all()
    assert (losses <= BOUNDED[name] * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_finite_for_every_finite_logit(name: str, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    logits = torch.cartesian_prod(*[torch.tensor([largest, -largest, 1.0], dtype=dtype)] * 4).requires_grad_()
    losses = LOSSES[name](logits)
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not losses.isnan().any()
