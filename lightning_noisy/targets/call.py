"""What stands at a criterion in a training batch, and who may change or see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F


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

    source: Tensor | None = None
    """The logits with their gradient; None where nothing was called."""

    drawn_by: DrawingChanger | None = None
    """Who has drawn the target; None where it is no draw."""

    mix: Callable[[Tensor], Tensor] | None = None
    """Mixes values of the samples (B, ...) as the batch is mixed; None where it is not."""

    loss_of: Callable[[Tensor], Tensor] | None = None
    """The criterion's mean loss of :attr:`source` with another target, computed aside: what the criterion writes,
    draws or counts for it is nobody's. Penalties on parameters are left out. None where nothing was called."""

    @property
    def settled(self) -> Tensor:
        """The target without randomness: where it is drawn, the label that the draws have converged to; else itself."""
        return self.target if self.drawn_by is None else self.drawn_by.settled_target(self)

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

    def as_target(self, labels: Tensor) -> Tensor:
        """Other labels (B,) as a target of this call: mixed, where its samples are."""
        return labels if self.mix is None else self.soft_target(self.mix(self.rows(labels)))

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
class DrawingChanger(Protocol):
    """A changer whose target is a draw."""

    def settled_target(self, call: TargetCall) -> Tensor:
        """The labels (B,) of now that the draws have come to, without chance."""
        ...


@runtime_checkable
class TargetMixer(Protocol):
    """A changer that mixes the targets of samples; it comes last."""

    def mix(self, values: Tensor) -> Tensor:
        """Values of the batch's samples (B, ...), mixed as their targets are."""
        ...


class TargetObserver(Protocol):
    """Sees given and final target, and changes nothing.

    With an attribute ``every_n_steps`` it sees the batches 0, n, 2n, ... of each epoch, and costs nothing in others.
    """

    def observe_target(self, call: TargetCall) -> None:
        """Look; may write rows of per-sample state."""
        ...
