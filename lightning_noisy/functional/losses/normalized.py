"""Losses divided by their sum over all labels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, log_softmax


def normalized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross entropy divided by its sum over all labels, with the gradient through both.

    .. math:: \frac{\log p_y}{\sum_k \log p_k}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_probability = log_softmax(logits)
    summable = torch.finfo(log_probability.dtype).min / logits.shape[1]  # K of them do not overflow
    log_probability = log_probability.clamp(min=summable)
    return at_label(log_probability, target) / log_probability.sum(dim=1)
