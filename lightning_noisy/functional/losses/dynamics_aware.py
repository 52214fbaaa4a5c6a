"""Generalized cross entropy with a share of soft bootstrapping."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_noisy.functional.losses.bootstrapping import soft_bootstrapping
from lightning_noisy.functional.losses.generalized_cross_entropy import generalized_cross_entropy


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
