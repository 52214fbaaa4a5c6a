"""Between cross entropy and mean absolute error: generalized cross entropy and dynamics-aware loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import log_of_floor, log_softmax, power_minus_one


def generalized_cross_entropy(logits: Tensor, target: Tensor, q: float = 0.7, eps: float = 1e-7) -> Tensor:
    r"""Generalized cross entropy: cross entropy at ``q=0``, mean absolute error ``1 - p_y`` at ``q=1``.

    .. math:: \mathcal{L}_q = \frac{1 - \max(p_y, \epsilon)^q}{q}, \qquad \mathcal{L}_0 = -\log \max(p_y, \epsilon)

    For a target distribution t it is the mean over the label, :math:`\sum_k t_k \mathcal{L}_q(p_k)`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        q: Exponent, at least 0. Small values lose no digits.
        eps: Floor of the probability; 0 for none.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = log_softmax(logits)
    soft = target.is_floating_point()
    weight = target.to(log_probability.dtype) if soft else log_probability.new_ones(())
    if not soft:
        log_probability = log_probability.gather(1, target.unsqueeze(1))
    log_probability = log_probability.clamp(min=log_of_floor(eps))
    losses = -log_probability if q == 0.0 else -power_minus_one(log_probability, q) / q
    return (weight * losses).sum(dim=1)


def soft_bootstrapping(logits: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Soft bootstrapping: the entropy of the prediction, with the gradient through both factors.

    .. math:: \mathcal{L}_{BS} = -\sum_k p_k \log(p_k + \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        eps: Added inside the logarithm; 0 gives the exact entropy.

    Returns:
        Losses (B,), float32 or float64, between :math:`-\log(1 + \epsilon)` and :math:`\log K`.
    """
    log_probability = log_softmax(logits)
    log_eps = log_probability.new_full((), log_of_floor(eps))
    return -(log_probability.exp() * torch.logaddexp(log_probability, log_eps)).sum(dim=1)


def dynamics_aware_loss(logits: Tensor, target: Tensor, q: float, lam: float = 0.0, eps: float = 1e-6) -> Tensor:
    r"""Dynamics-aware loss: generalized cross entropy plus weighted soft bootstrapping.

    .. math:: \mathcal{L} = \mathcal{L}_q + \lambda \frac{\mathcal{L}_{BS}}{q \ln K}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        q: Exponent, at least 0; more than 0 where ``lam`` is.
        lam: Weight of the bootstrapping term, which is not computed at 0.
        eps: Floor of the probability and addend of the bootstrapping term.

    Returns:
        Losses (B,), float32 or float64.
    """
    losses = generalized_cross_entropy(logits, target, q, eps)
    if lam == 0.0:
        return losses
    return losses + lam / (q * math.log(logits.shape[1])) * soft_bootstrapping(logits, eps)
