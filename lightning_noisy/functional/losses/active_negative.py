"""Active negative losses and their penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, log_of_floor, log_softmax
from lightning_noisy.functional.losses.normalized import normalized_cross_entropy


def normalized_negative_cross_entropy(logits: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Normalised negative cross entropy: the complement of the label's share in what is above the floor.

    .. math:: 1 - \frac{r_y}{\sum_k r_k}, \qquad r_k = \log \max(p_k, \epsilon) - \log \epsilon

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        eps: Floor of the probability, more than 0 and at most 1 / (2 K), so that the sum is at least log 2.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_floor = log_of_floor(eps)
    remainder = log_softmax(logits).clamp(min=log_floor) - log_floor
    return 1.0 - at_label(remainder, target) / remainder.sum(dim=1)


ACTIVE_NEGATIVE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "ce": (normalized_cross_entropy, normalized_negative_cross_entropy),
}
"""Base loss of :func:`active_negative_loss` -> its normalised form and its normalised negative form."""


def active_negative_loss(logits: Tensor, target: Tensor, alpha: float, beta: float, base: str = "ce") -> Tensor:
    r"""Weighted sum of a normalised loss and its normalised negative loss, without the penalty on the weights.

    .. math:: \alpha \mathcal{L}_{NCE} + \beta \mathcal{L}_{NNCE}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        alpha: Weight of the normalised loss.
        beta: Weight of the normalised negative loss.
        base: A key of :data:`ACTIVE_NEGATIVE`.

    Returns:
        Losses (B,), float32 or float64.
    """
    active, negative = ACTIVE_NEGATIVE[base]
    return alpha * active(logits, target) + beta * negative(logits, target)


def absolute_sum(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of the absolute values of all entries, differentiable: the sign is the gradient, 0 at 0.

    Args:
        tensors: At least one floating-point tensor, all on one device.

    Returns:
        Scalar, float64: a float32 norm on the CPU keeps three digits of a ResNet's weights.
    """
    return torch.stack(torch._foreach_norm(tuple(tensors), 1, dtype=torch.float64)).sum()
