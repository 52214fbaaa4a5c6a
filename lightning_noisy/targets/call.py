"""What stands at a criterion in a training batch, and who may change or see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.losses.class_weights import ChangedTarget


@dataclass(frozen=True)
class TargetCall:
    """What stands at the criterion in one training batch."""

    index: Tensor
    """Dataset indices, int64 (B,)."""

    logits: Tensor
    """Detached logits (B, K), as the criterion gets them."""

    given: Tensor
    """The target that the project passed: int64 (B,)."""

    target: Tensor
    """The target so far; for observers the final one: int64 (B,) or soft (B, K)."""

    epoch: int
    """Epoch number, from 0."""

    context: Mapping[str, Any] = field(default_factory=dict)
    """What else the criterion was called with, by the names of its arguments: ``features`` and the like."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.logits.shape[1]

    @property
    def probabilities(self) -> Tensor:
        """softmax(logits), float32 (float64 of float64 logits), shape (B, K)."""
        wide = self.logits if self.logits.dtype == torch.float64 else self.logits.float()
        return wide.softmax(dim=1)

    def rows(self, target: Tensor) -> Tensor:
        """Labels (B,) or soft targets (B, K) as rows (B, K) in float32 (float64 of float64 logits)."""
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        return target.to(dtype) if target.is_floating_point() else F.one_hot(target, self.logits.shape[1]).to(dtype)

    def soft_target(self, rows: Tensor) -> Tensor:
        """Rows (B, K) as a target of this call: under autocast float32, since the criterion computes in it."""
        autocast = torch.is_autocast_enabled(self.logits.device.type)
        return rows.float() if autocast else rows.to(self.logits.dtype)


@runtime_checkable
class AttentiveCriterion(Protocol):
    """A criterion that pays more attention to one sample than to another."""

    def sample_attention(self, logits: Tensor, **context: Any) -> Tensor:
        """The attention (B,), in [0, 1], for logits (B, K) and what else the criterion is called with."""
        ...


class TargetChanger(Protocol):
    """Changes the target of a batch, once, before the criterion sees it."""

    replaces_target: bool
    """The given target does not enter the result as such; two of these on one criterion are an error."""

    makes_soft_targets: bool
    """The result may be soft (B, K)."""

    def change_target(self, call: TargetCall) -> Tensor:
        """The new target; may write rows of per-sample state."""
        ...


@runtime_checkable
class TargetMixer(Protocol):
    """A changer that mixes the targets of samples; it comes last."""

    def mix(self, values: Tensor) -> Tensor:
        """Values of the batch's samples (B, ...), mixed as their targets are."""
        ...


class TargetObserver(Protocol):
    """Sees given and final target of every batch, and changes nothing."""

    def observe_target(self, call: TargetCall) -> None:
        """Look; may write rows of per-sample state."""
        ...


def changed(call: TargetCall, changers: Sequence[TargetChanger]) -> tuple[TargetCall, ChangedTarget | None]:
    """A call after all changers, and its target as class weights need it, None if it is the given one."""
    mixers = [changer for changer in changers if isinstance(changer, TargetMixer)]
    before = call
    for changer in changers:
        call = replace(call, target=changer.change_target(call))
        before = before if changer in mixers else call
    if call.target is call.given:
        return call, None

    def mix(values: Tensor) -> Tensor:
        for mixer in mixers:
            values = mixer.mix(values)
        return values

    return call, ChangedTarget(call.target, before.target, call.given, mix)
