"""Rows of targets in the type that a criterion takes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.targets import TargetCall


def target_rows(call: TargetCall) -> Tensor:
    """The target so far as rows (B, K), one-hot for labels, float32 (float64 of float64 logits)."""
    like = call.probabilities
    target = call.target
    return target.to(like) if target.is_floating_point() else F.one_hot(target, call.num_classes).to(like)


def as_soft_target(rows: Tensor, call: TargetCall) -> Tensor:
    """Rows (B, K) as a target of the call: under autocast float32, since the criterion computes in it."""
    autocast = torch.is_autocast_enabled(call.logits.device.type)
    return rows.float() if autocast else rows.to(call.logits.dtype)
