"""Asymmetric losses: their minimum is at the label that a sample has most often, whatever the others are."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, power_minus_one
from lightning_noisy.functional.losses.probabilities import softmax


def _label_probability(logits: Tensor, target: Tensor) -> Tensor:
    return at_label(softmax(logits), target)


def asymmetric_generalized_cross_entropy(logits: Tensor, target: Tensor, a: float, q: float) -> Tensor:
    r"""Asymmetric generalized cross entropy.

    .. math:: \frac{(a + 1)^q - (a + p_y)^q}{q}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        a: Addend, more than 0.
        q: Exponent, more than 0. Small values lose no digits.

    Returns:
        Losses (B,), float32 or float64.
    """
    ratio = (a + _label_probability(logits, target)) / (a + 1.0)
    return -math.pow(a + 1.0, q) / q * power_minus_one(ratio.log(), q)


def asymmetric_unhinged_loss(logits: Tensor, target: Tensor, a: float, q: float) -> Tensor:
    r"""Asymmetric unhinged loss.

    .. math:: \frac{(a - p_y)^q - (a - 1)^q}{q}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        a: Minuend, more than 1.
        q: Exponent, more than 0. Small values lose no digits.

    Returns:
        Losses (B,), float32 or float64.
    """
    ratio = (a - _label_probability(logits, target)) / (a - 1.0)
    return math.pow(a - 1.0, q) / q * (q * ratio.log()).expm1()


def asymmetric_exponential_loss(logits: Tensor, target: Tensor, a: float) -> Tensor:
    r"""Asymmetric exponential loss.

    .. math:: \exp(-p_y / a)

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        a: Divisor, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    return (-_label_probability(logits, target) / a).exp()
