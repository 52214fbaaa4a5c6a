"""Everything that the package uses of Lightning and PyTorch beyond what they document, one function each.

``tests/test_private_api.py`` fails by name when a version no longer has one of them.
"""

from __future__ import annotations

import sys
from datetime import timedelta

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn


def batches_begun(trainer: Trainer) -> int:
    """Training batches that have begun since the first start, over all resumes."""
    begun: int = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return begun


def batches_processed(trainer: Trainer) -> int:
    """Training batches of the current epoch that are done; after a resume at an epoch's end, those of that epoch."""
    processed: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return processed


def checkpoint_interval(checkpoint: ModelCheckpoint) -> tuple[int, timedelta | None]:
    """The optimizer steps (0: none) and the time after which a ModelCheckpoint writes inside an epoch."""
    return checkpoint._every_n_train_steps, checkpoint._train_time_interval


def is_compiled(module: nn.Module) -> bool:
    """Whether a module, or the LightningModule that it is, has gone through ``torch.compile``."""
    by_lightning = getattr(module, "_compiler_ctx", None) is not None
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    return by_lightning or in_place or hasattr(module, "_orig_mod")


def calling_module() -> LightningModule | None:
    """The LightningModule whose training step a Trainer is running right now, up the stack; None without one."""
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, LightningModule) and caller._trainer is not None and caller._trainer.training:
            return caller
        frame = frame.f_back  # type: ignore[assignment]
    return None
