"""What the ModelCheckpoints of a Trainer have written, and are about to write."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_noisy.private_api import checkpoint_interval, is_a, last_saved


def checkpoint_is_due(trainer: Trainer) -> bool:
    """Whether a ModelCheckpoint may write after this batch, so that ranks have to share their rows before."""
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if is_a(callback, "ModelCheckpoint")]
    intervals = [checkpoint_interval(checkpoint) for checkpoint in checkpoints]
    return any(time is not None or (steps > 0 and trainer.global_step % steps == 0) for steps, time in intervals)


def last_checkpoint(trainer: Trainer) -> str:
    """The last file of a ModelCheckpoint; empty without one."""
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if is_a(callback, "ModelCheckpoint")]
    return next(filter(None, map(last_saved, checkpoints)), "")
