"""What a target has to look like, asked by every loss before it computes."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.base import NoisyLabelLoss


def check_target(loss: NoisyLabelLoss, logits: Tensor, target: Tensor) -> None:
    """Refuse a target whose dtype and shape are neither those of labels nor, where the loss allows, of soft targets.

    Looks at no value, so it costs an accelerator nothing.

    Args:
        loss: The loss, named in the message; its ``soft_targets`` decides.
        logits: The logits (B, K).
        target: The target.

    Raises:
        NoisyLabelError: The target is not int64 (B,), nor floating-point (B, K) for a loss with soft targets.
    """
    labels = target.dtype == torch.int64 and target.shape == logits.shape[:1]
    soft = target.is_floating_point() and target.shape == logits.shape
    if labels or (soft and loss.soft_targets):
        return
    wanted = "int64 labels (B,)" + (" or floating-point targets (B, K)" if loss.soft_targets else "")
    way_out = ": give labels (`target.argmax(dim=1)`) or use a loss with `soft_targets = True`" if soft else ""
    raise NoisyLabelError(
        f"{type(loss).__name__} expects {wanted} for its logits of shape {tuple(logits.shape)}, but got a "
        f"{target.dtype} target of shape {tuple(target.shape)}{way_out}."
    )
