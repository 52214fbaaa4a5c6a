"""Rows of targets and of predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import full_precision


def one_hot(target: Tensor, num_classes: int, floor: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """One-hot rows, not renormalized where the other classes get a ``floor``.

    Args:
        target: int64 labels (B,).
        num_classes: K.
        floor: Weight of the classes that are not the label.
        dtype: dtype of the rows.

    Returns:
        Tensor (B, K).
    """
    rows = torch.full((len(target), num_classes), floor, dtype=dtype, device=target.device)
    return rows.scatter_(1, target.unsqueeze(1), 1.0)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of logits of any dtype, in full precision.

    Args:
        logits: Floating-point tensor (B, K).

    Returns:
        Tensor (B, K), float32 or float64.
    """
    return full_precision(logits).softmax(dim=1)


def clipped_softmax(logits: Tensor, eps: float) -> Tensor:
    r"""Softmax clipped to :math:`[\epsilon, 1 - \epsilon]`, not renormalized.

    Args:
        logits: Floating-point tensor (B, K).
        eps: The floor, and the distance of the ceiling from 1.

    Returns:
        Tensor (B, K), float32 or float64. Its gradient is zero where it is clipped.
    """
    return softmax(logits).clamp(eps, 1.0 - eps)
