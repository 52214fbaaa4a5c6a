"""Smoothed labels, and any loss as it is with them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses.cross_entropy import cross_entropy


def smoothed_labels(target: Tensor, num_classes: int, smoothing: float) -> Tensor:
    r"""Rows with :math:`1 - \epsilon` on the label and :math:`\epsilon / (K - 1)` on every other class.

    Args:
        target: int64 labels (B,).
        num_classes: K.
        smoothing: :math:`\epsilon`, in [0, 1]. torch's ``label_smoothing`` is :math:`\epsilon K / (K - 1)`.

    Returns:
        float32 (B, K).
    """
    rows = torch.full((len(target), num_classes), smoothing / (num_classes - 1), device=target.device)
    return rows.scatter_(1, target.unsqueeze(1), 1 - smoothing)


def smooth_losses(losses: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    r"""Losses with given labels, as they are with smoothed ones.

    .. math:: (1 - s)\, \ell_i - \frac{s}{K} \sum_k \log p_{ik}, \qquad s = \frac{\epsilon K}{K - 1}

    For cross entropy that is cross entropy with :func:`smoothed_labels`; for other losses the second term is the same.

    Args:
        losses: (B,).
        logits: Floating-point tensor (B, K).
        smoothing: :math:`\epsilon`, in [0, 1 - 1 / K].
    """
    share = smoothing * logits.shape[1] / (logits.shape[1] - 1)
    uniform = torch.full_like(logits, 1 / logits.shape[1])
    return (1 - share) * losses + share * cross_entropy(logits, uniform)
