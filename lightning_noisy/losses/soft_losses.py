"""Losses for targets that a strategy has made."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.base import NoisyLabelLoss


def check_takes_soft_targets(criterion: nn.Module) -> None:
    """Refuse a criterion of which :func:`soft_losses` cannot be had.

    Raises:
        NoisyLabelError: It takes labels alone, or needs more than logits and target.
    """
    ours = isinstance(criterion, NoisyLabelLoss) and criterion.soft_targets and not criterion.requires
    if not ours and not isinstance(criterion, nn.CrossEntropyLoss):
        raise NoisyLabelError(
            f"Mixed targets need a loss of logits and soft targets alone, but {type(criterion).__name__} is none: use "
            "torch.nn.CrossEntropyLoss, or a loss whose `soft_targets` is True."
        )


def soft_losses(criterion: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    """The losses of samples by a criterion's formula for mixed or soft targets, which no callback sees.

    Args:
        criterion: Cross entropy of torch, or a loss of this package that takes soft targets and nothing beside them.
        logits: (B, K).
        target: Rows (B, K).

    Returns:
        (B,).

    Raises:
        NoisyLabelError: It takes labels alone, or needs more than logits and target.
    """
    check_takes_soft_targets(criterion)
    if isinstance(criterion, NoisyLabelLoss):
        return criterion.losses(logits, target)
    assert isinstance(criterion, nn.CrossEntropyLoss)
    smoothing = criterion.label_smoothing
    return F.cross_entropy(logits, target.to(logits), criterion.weight, reduction="none", label_smoothing=smoothing)
