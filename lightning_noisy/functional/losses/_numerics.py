"""Logarithms, powers and floors that the losses share."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def full_precision(logits: Tensor) -> Tensor:
    """float32, or float64 for float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithms of the probabilities of each row (B, K), in full precision."""
    return full_precision(logits).log_softmax(dim=1)


def summable_log_softmax(logits: Tensor) -> Tensor:
    """:func:`log_softmax` without values so low that K of them overflow; these have no gradient."""
    log_probability = log_softmax(logits)
    return log_probability.clamp(min=torch.finfo(log_probability.dtype).min / logits.shape[1])


def at_label(values: Tensor, target: Tensor) -> Tensor:
    """The entry of each row (B, K) that the label (B,) names."""
    return values.gather(1, target.unsqueeze(1)).squeeze(1)


def log_of_floor(eps: float) -> float:
    """The logarithm of a probability floor; a floor of zero is none."""
    return math.log(eps) if eps > 0.0 else -math.inf


def log_complement(log_probability: Tensor) -> Tensor:
    """``log(1 - p)`` of ``log p``, accurate for small and for large p; finite, without a gradient where p is 1."""
    half = -math.log(2.0)
    rest = (-log_probability.expm1()).clamp(min=torch.finfo(log_probability.dtype).tiny)
    lower = log_probability.where(log_probability <= half, half)  # a clamp has no gradient at its bound
    return torch.where(log_probability > half, rest.log(), torch.log1p(-lower.exp()))


def focal(log_probability: Tensor, gamma: float, detach: bool) -> Tensor:
    """``-(1 - p)**gamma * log p`` of ``log p``; detached, the first factor is a constant to the gradient."""
    modulator = (gamma * log_complement(log_probability)).exp()
    return -(modulator.detach() if detach else modulator) * log_probability


def power_minus_one(log_base: Tensor, exponent: float) -> Tensor:
    """``base**exponent - 1`` for bases in [0, 1], accurate in value and in gradient.

    ``expm1`` is the accurate one near zero; below, its backward pass adds 1 to a result close to -1 and loses the
    small gradients that ``exp`` keeps.
    """
    log_power = exponent * log_base
    return torch.where(log_power > -1.0, log_power.expm1(), log_power.exp() - 1.0)
