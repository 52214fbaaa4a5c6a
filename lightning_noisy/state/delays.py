"""Warm-ups, stages and schedules that a run is too short for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn


@runtime_checkable
class Delayed(Protocol):
    """A callback or loss that does something from an epoch on."""

    def begins_at(self) -> dict[str, int]:
        """The arguments that delay something, and the epoch, from 0, in which it first happens."""
        ...


def epochs_of_fit(trainer: Trainer) -> int | None:
    """After how many epochs a fit ends by ``max_epochs`` or ``max_steps``; None where that is unknown."""
    limits = [trainer.max_epochs] if trainer.max_epochs is not None and trainer.max_epochs > 0 else []
    batches: float = trainer.num_training_batches
    if trainer.max_steps > 0 and 0 < batches < math.inf:
        steps: int = math.ceil(batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return min(limits, default=None)


def warn_of_late(parts: Iterable[object], epochs: int | None) -> None:
    """Say of each part what it will never come to do.

    Args:
        parts: Callbacks and modules.
        epochs: After how many epochs the run ends, None where that is unknown.
    """
    for part in parts:
        if epochs is not None and isinstance(part, Delayed):
            for name, first in part.begins_at().items():
                if first >= epochs:
                    warn_of_length(type(part).__name__, name, f"acts from epoch {first} on", epochs)


def warn_of_length(owner: str, name: str, what: str, epochs: int) -> None:
    """One line for something that outlasts the run."""
    rank_zero_warn(f"{owner} outlasts the run: by its `{name}` it {what}, but the last epoch is {epochs - 1}.")
