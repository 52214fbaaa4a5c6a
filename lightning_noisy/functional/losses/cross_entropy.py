"""Cross entropy, and what is made of it by a factor, an addend or a shorter series."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import (
    at_label,
    focal,
    log_complement,
    log_of_floor,
    log_softmax,
    summable_log_softmax,
)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross entropy of each sample, for labels or for a target distribution.

    .. math:: -\log p_y \qquad\text{or}\qquad -\sum_k t_k \log p_k

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K), which need not sum to one.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = log_softmax(logits)
    if target.is_floating_point():
        return -(target.to(log_probability.dtype) * log_probability).sum(dim=1)
    return -at_label(log_probability, target)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 0.5, detach: bool = False) -> Tensor:
    r"""Cross entropy that counts less the surer the network is of the label.

    .. math:: -(1 - p_y)^\gamma \log p_y

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        gamma: Exponent, at least 0; 0 is cross entropy.
        detach: Whether the factor is a constant to the gradient.

    Returns:
        Losses (B,), float32 or float64.
    """
    return focal(at_label(summable_log_softmax(logits), target), gamma, detach)


def taylor_cross_entropy(logits: Tensor, target: Tensor, order: int, eps: float = 1e-6) -> Tensor:
    r"""The first terms of the Taylor series of cross entropy at :math:`p_y = 1`.

    .. math:: \sum_{k=1}^{t} \frac{(1 - \max(p_y, \epsilon))^k}{k}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        order: Number of terms t, at least 1: 1 is ``1 - p_y``, and cross entropy is the limit.
        eps: Floor of the probability; 0 for none.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = at_label(log_softmax(logits), target).clamp(min=log_of_floor(eps))
    powers = torch.arange(1, order + 1, device=logits.device)
    return ((powers * log_complement(log_probability).unsqueeze(1)).exp() / powers).sum(dim=1)


def poly1_cross_entropy(logits: Tensor, target: Tensor, epsilon: float) -> Tensor:
    r"""Cross entropy with another weight of the first term of its Taylor series.

    .. math:: -\log p_y + \epsilon (1 - p_y)

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        epsilon: The weight that is added.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = at_label(log_softmax(logits), target)
    return -log_probability + epsilon * (1.0 - log_probability.exp())
