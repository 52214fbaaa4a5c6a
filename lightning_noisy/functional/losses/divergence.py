"""How far predictions are apart."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses._numerics import summable_log_softmax


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of two predictions, both ways.

    .. math:: D_{KL}(p \| q) + D_{KL}(q \| p) = \sum_k (p_k - q_k)(\ln p_k - \ln q_k)

    Args:
        first: Logits (B, K) of p.
        second: Logits (B, K) of q.

    Returns:
        (B,), at least 0, in nats; gradients reach both.
    """
    p, q = summable_log_softmax(first), summable_log_softmax(second)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1)
