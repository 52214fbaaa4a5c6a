"""The end of an epoch, exactly once: also where a resume skips it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_noisy.trainer import starts_afresh


class EpochFigures:
    """Closes each epoch once: computes its figures, keeps them and logs them.

    A checkpoint that the last batch of an epoch has written makes Lightning skip the end of that epoch at resume. So an
    epoch stays open, also in the checkpoint, until its figures are there; the first batch of the next one closes it
    late. An epoch without a batch is never opened.

    Args:
        compute: Gives the figures of the epoch that ends, equal on all processes, and may forget what they were made
            of. All processes call it, so it may be a collective.
    """

    def __init__(self, compute: Callable[[], dict[str, float]]) -> None:
        self.compute = compute
        self.open_epoch: int | None = None
        """The epoch that has begun and has no figures yet."""
        self.history: dict[int, dict[str, float]] = {}
        """Figures of each finished epoch: epoch -> name -> value."""

    def begin(self, trainer: Trainer) -> None:
        """Training starts: forget an earlier run unless this one goes on from it."""
        if starts_afresh(trainer):
            self.open_epoch, self.history = None, {}

    def enter(self, trainer: Trainer) -> None:
        """A batch starts: close the epoch before if its end was skipped, then open this one."""
        epoch = trainer.current_epoch
        if self.open_epoch not in (None, epoch):
            skipped, figures = self._close()
            _log_late(trainer, figures, skipped)
        self.open_epoch = epoch

    def leave(self, trainer: Trainer) -> None:
        """An epoch ends."""
        if self.open_epoch is not None:
            _, figures = self._close()
            # Equal on all processes already; without `sync_dist` Lightning warns.
            trainer.lightning_module.log_dict(figures, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Open epoch and history as plain values. Never a collective."""
        return {"open_epoch": self.open_epoch, "history": {epoch: dict(seen) for epoch, seen in self.history.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved."""
        self.open_epoch = state["open_epoch"]
        self.history = {epoch: dict(seen) for epoch, seen in state["history"].items()}

    def _close(self) -> tuple[int, dict[str, float]]:
        assert self.open_epoch is not None
        epoch, figures = self.open_epoch, self.compute()
        if figures:
            self.history[epoch] = figures
        self.open_epoch = None
        return epoch, figures


def _log_late(trainer: Trainer, figures: dict[str, float], epoch: int) -> None:
    """Log figures of an epoch that is over, rounded to float32 as Lightning's own logging does."""
    rounded = {name: torch.tensor(value, dtype=torch.float32).item() for name, value in figures.items()}
    for logger in trainer.loggers if figures else ():
        logger.log_metrics({**rounded, "epoch": epoch}, step=trainer.global_step)
