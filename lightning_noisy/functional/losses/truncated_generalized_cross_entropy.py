"""Truncated generalized cross entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses.generalized_cross_entropy import generalized_cross_entropy


def truncated_generalized_cross_entropy(
    logits: Tensor, target: Tensor, kept: Tensor, q: float = 0.7, k: float = 0.5
) -> Tensor:
    r"""Generalized cross entropy of the samples that are kept, counted from its value at :math:`p_y = k`.

    .. math:: v \left(\frac{1 - p_y^q}{q} - \frac{1 - k^q}{q}\right) = v\, \frac{k^q - p_y^q}{q}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        kept: The factors v (B,), 1 for samples that are kept and 0 for the others.
        q: Exponent, more than 0.
        k: Threshold of the probability, in [0, 1).

    Returns:
        Losses (B,), float32 or float64; negative for :math:`p_y > k`.
    """
    threshold: float = (1.0 - k**q) / q
    losses = generalized_cross_entropy(logits, target, q, eps=0.0)
    return kept.to(losses) * (losses - threshold)
