"""Cross entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, log_softmax


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
