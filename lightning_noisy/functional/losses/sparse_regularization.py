"""Sparse regularization: sharp predictions of normalized logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import full_precision, log_of_floor, log_softmax

_SHORTEST = 1e-12


def tempered_logits(logits: Tensor, tau: float, normalize: bool = True) -> Tensor:
    r"""Logits of length :math:`1 / \tau`.

    .. math:: \frac{z}{\tau \max(\lVert z \rVert_2, 10^{-12})}, \qquad\text{or}\quad \frac{z}{\tau}

    Logits shorter than that, as those of a head that starts at zero, have the gradient of length 1, not one of 1e12.

    Args:
        logits: Floating-point tensor (B, K).
        tau: Temperature, more than 0.
        normalize: Whether to divide by the Euclidean length.

    Returns:
        Tensor (B, K), float32 or float64.
    """
    logits = full_precision(logits)
    if not normalize:
        return logits / tau
    largest = logits.detach().abs().amax(dim=1, keepdim=True)
    scaled = logits / largest.clamp(min=_SHORTEST)  # or squares would overflow
    length: Tensor = scaled.norm(dim=1, keepdim=True)
    short = (length < 1.0) & (largest < _SHORTEST)
    straight = scaled.detach() + (logits - logits.detach())
    return torch.where(short, straight, scaled / length.where(~short, 1.0)) / tau


def sparsity_penalty(logits: Tensor, p: float, eps: float = 1e-7) -> Tensor:
    r"""The p-norm of the prediction, without the root: the sparser, the lower.

    .. math:: \sum_k \max(p_k, \epsilon)^p

    Args:
        logits: Floating-point tensor (B, K).
        p: Exponent in (0, 1).
        eps: Floor of the probability, more than 0.

    Returns:
        Penalties (B,) of at least 1, float32 or float64.
    """
    return (p * log_softmax(logits).clamp(min=log_of_floor(eps))).exp().sum(dim=1)
