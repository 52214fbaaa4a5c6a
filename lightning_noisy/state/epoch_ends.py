"""Epochs whose end Lightning has skipped, or that it begins again."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_noisy.state.run_state import RunState
from lightning_noisy.trainer_access import log_late


def close_skipped(trainer: Trainer, state: RunState) -> None:
    """End the epoch whose end a resume has skipped, before the next one changes what its metrics are made of."""
    skipped = state.open_epoch
    if skipped is not None and skipped != trainer.current_epoch:
        log_late(trainer, state.close_epoch(), skipped)


def begin_again(trainer: Trainer, state: RunState) -> None:
    """Forget the sums of an epoch that begins anew, as Lightning lets it after an exception."""
    if state.open_epoch == trainer.current_epoch:
        for section in state.sections.values():
            section.sums.reset()
