"""Negative learning: what a sample is not."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import full_precision
from lightning_noisy.functional.random import hash_uniform


def negative_learning(logits: Tensor, negatives: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Cross entropy of not being of each of some classes.

    .. math:: -\sum_j \log \operatorname{clip}(1 - p_{\bar y_j}, \epsilon, 1)

    Args:
        logits: Floating-point tensor (B, K).
        negatives: int64 classes (B, n) that the samples are not of; one may stand there twice.
        eps: Floor of what is left, in (0, 1).

    Returns:
        Losses (B,), float32 or float64. The gradient of a class above 1 - eps is zero.
    """
    rest = 1.0 - full_precision(logits).softmax(dim=1).gather(1, negatives)
    return -rest.clamp(eps, 1.0).log().sum(dim=1)


def draw_negatives(target: Tensor, num_classes: int, num_negatives: int, *keys: Tensor | int) -> Tensor:
    """Draw classes that are not the label, uniformly, independently and with replacement.

    Args:
        target: int64 labels (B,).
        num_classes: K, at least 2.
        num_negatives: Classes n to draw for each sample.
        *keys: Integers or integer tensors (B,) that the draws are a function of, see
            :func:`lightning_noisy.functional.random.hash_bits`.

    Returns:
        int64 classes (B, n).
    """
    columns = (key.unsqueeze(-1) if isinstance(key, Tensor) and key.ndim else key for key in keys)
    uniform = hash_uniform(*columns, torch.arange(num_negatives, device=target.device))
    offset = 1 + (uniform * (num_classes - 1)).long()
    return (target.unsqueeze(1) + offset) % num_classes
