"""Generalized cross entropy, between cross entropy and mean absolute error."""

from __future__ import annotations

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
