"""Active negative losses and their penalties."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, focal, log_of_floor, log_softmax
from lightning_noisy.functional.losses.normalized import normalized_cross_entropy, normalized_focal_loss


def _lacking_share(remainder: Tensor, target: Tensor) -> Tensor:
    """What the label lacks of the sum of each row."""
    return 1.0 - at_label(remainder, target) / remainder.sum(dim=1)


def normalized_negative_cross_entropy(logits: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Normalized negative cross entropy: the complement of the label's share in what is above the floor.

    .. math:: 1 - \frac{r_y}{\sum_k r_k}, \qquad r_k = \log \max(p_k, \epsilon) - \log \epsilon

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        eps: Floor of the probability, more than 0 and at most 1 / (2 K), so that the sum is at least log 2.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_floor = log_of_floor(eps)
    remainder = log_softmax(logits).clamp(min=log_floor) - log_floor
    return _lacking_share(remainder, target)


def normalized_negative_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 0.5, eps: float = 1e-7, detach: bool = True
) -> Tensor:
    r"""Normalized negative focal loss.

    Each class has the margin :math:`A - f_k` between the largest possible focal loss and its own. The loss is one minus
    the label's share of the sum of these margins:

    .. math::
        1 - \frac{A - f_y}{\sum_k (A - f_k)}, \qquad f_k = -(1 - \tilde p_k)^\gamma \log \tilde p_k, \quad
        \tilde p_k = \max(p_k, \epsilon), \quad A = -(1 - \epsilon)^\gamma \log \epsilon

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        gamma: Exponent, at least 0; 0 is normalized negative cross entropy.
        eps: Floor of the probability, more than 0 and at most 1 / (2 K), so that the sum is not 0.
        detach: Whether the factors :math:`(1 - \tilde p_k)^\gamma` are constants to the gradient.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_floor = log_of_floor(eps)
    log_probability = log_softmax(logits).clamp(min=log_floor)
    most = focal(log_probability.new_full((), log_floor), gamma, detach)
    return _lacking_share(most - focal(log_probability, gamma, detach), target)


ACTIVE_NEGATIVE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "ce": (normalized_cross_entropy, normalized_negative_cross_entropy),
    "focal": (normalized_focal_loss, normalized_negative_focal_loss),
}
"""Base loss of :func:`active_negative_loss` -> its normalized form and its normalized negative form."""


def active_negative_loss(logits: Tensor, target: Tensor, alpha: float, beta: float, base: str = "ce") -> Tensor:
    r"""Weighted sum of a normalized loss and its normalized negative loss, without the penalties.

    .. math:: \alpha \mathcal{L}_{NCE} + \beta \mathcal{L}_{NNCE}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        alpha: Weight of the normalized loss.
        beta: Weight of the normalized negative loss.
        base: A key of :data:`ACTIVE_NEGATIVE`.

    Returns:
        Losses (B,), float32 or float64.
    """
    active, negative = ACTIVE_NEGATIVE[base]
    return alpha * active(logits, target) + beta * negative(logits, target)


def entropy_regularization(mean_prediction: Tensor, eps: float = 1e-7) -> Tensor:
    r"""How far the mean prediction is from uniform: what its entropy lacks.

    .. math:: \ln K + \sum_k \tilde m_k \ln \tilde m_k, \qquad \tilde m_k = \max(m_k, \epsilon)

    Args:
        mean_prediction: Mean of the probabilities of many samples (K,), floating point.
        eps: Floor of the mean, more than 0.

    Returns:
        Scalar from 0 to ln K, and so little below 0 as rounding and the floor make it.
    """
    mean = mean_prediction.clamp(min=eps)
    return math.log(len(mean)) + (mean * mean.log()).sum()


def absolute_sum(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of the absolute values of all entries, differentiable: the sign is the gradient, 0 at 0.

    Args:
        tensors: At least one floating-point tensor, all on one device.

    Returns:
        Scalar, float64: a float32 norm on the CPU keeps three digits of a ResNet's weights.
    """
    return torch.stack(torch._foreach_norm(tuple(tensors), 1, dtype=torch.float64)).sum()
