"""Losses that count batches."""

from __future__ import annotations

from typing import Protocol

from lightning_noisy.losses.base import NoisyLabelLoss


class OpenBatch(Protocol):
    """What a loss asks of the run's training batch."""

    repeated: bool
    """Whether its training step runs again, for an optimizer that evaluates the loss several times (SAM, LBFGS)."""


class CountingLoss(NoisyLabelLoss):
    """Base of the losses with buffers that a batch moves: a statistic over batches, or their number."""

    open_batch: OpenBatch | None = None
    """The run's training batch; None outside of a run, where each call is a batch of its own."""

    @property
    def moves(self) -> bool:
        """Whether this call is to move the buffers: in training, in the first pass through a batch."""
        return self.training and not (self.open_batch is not None and self.open_batch.repeated)
