"""Losses divided by their sum over all labels."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses._numerics import (
    at_label,
    focal,
    log_of_floor,
    log_softmax,
    power_minus_one,
    summable_log_softmax,
)


def _share(values: Tensor, target: Tensor) -> Tensor:
    """What the label has of the sum of each row."""
    return at_label(values, target) / values.sum(dim=1)


def normalized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross entropy divided by its sum over all labels, with the gradient through both.

    .. math:: \frac{\log p_y}{\sum_k \log p_k}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    return _share(summable_log_softmax(logits), target)


def normalized_focal_loss(logits: Tensor, target: Tensor, gamma: float = 0.5, detach: bool = True) -> Tensor:
    r"""Focal loss divided by its sum over all labels, with the gradient through both.

    .. math:: \frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        gamma: Exponent, at least 0; 0 is normalized cross entropy.
        detach: Whether the factors :math:`(1 - p_k)^\gamma` are constants to the gradient.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    return _share(focal(summable_log_softmax(logits), gamma, detach), target)


def normalized_generalized_cross_entropy(logits: Tensor, target: Tensor, q: float, eps: float = 1e-7) -> Tensor:
    r"""Generalized cross entropy divided by its sum over all labels, with the gradient through both.

    .. math:: \frac{1 - \max(p_y, \epsilon)^q}{\sum_k \big(1 - \max(p_k, \epsilon)^q\big)}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        q: Exponent, more than 0. Small values lose no digits.
        eps: Floor of the probability; 0 for none.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    return _share(-power_minus_one(log_softmax(logits).clamp(min=log_of_floor(eps)), q), target)
