"""What a checkpoint has cut short, and whether it belongs to the run: asked and mended when training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_noisy.checkpoints.check import check_content, check_optimizers, check_positions, check_run_state
from lightning_noisy.data.batch import Batch
from lightning_noisy.private_api import batches_processed, take_back_unfinished_batch, validate_again
from lightning_noisy.state.checkpoints import last_checkpoint


class Interruption:
    """The batch or the validation in which a checkpoint was written: both begin again.

    A :class:`~lightning_noisy.state.RunDriver` tells it what happens.
    """

    def __init__(self) -> None:
        self.validating = False
        """Whether a validation of the fit has begun and not ended."""
        self.broken: dict[str, Any] | None = None
        """The batch that has begun and not ended, and the last checkpoint that was written outside of one."""
        self.failed = False
        """Whether this process has failed, so that it cannot meet the others any more."""
        self._loading: Mapping[str, Any] | None = None

    def note(self, trainer: Trainer, batch: Batch | None) -> None:
        """A run breaks, or is saved: in a batch, if there is one."""
        if batch is not None:
            self._note(trainer, batch.epoch, batch.batch_idx)

    def fail(self, trainer: Trainer, batch: Batch | None) -> None:
        """A run breaks. Several processes cannot meet any more, so what they have not shared is lost in any place."""
        self.failed = True
        self.note(trainer, batch)
        if batch is None and trainer.world_size > 1:
            self._note(trainer, trainer.current_epoch, batches_processed(trainer))

    def state_dict(self) -> dict[str, Any]:
        """What is saved beside the state of the run."""
        return {"broken_batch": self.broken, "validating": self.validating}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was saved."""
        self.broken, self.validating = state.get("broken_batch"), state.get("validating", False)

    def check(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
        """Ask what Lightning has read whether it is whole.

        Raises:
            NoisyLabelError: It is not, or its positions are impossible.
        """
        assert trainer.state.fn is not None
        loop = f"{trainer.state.fn.value}_loop"
        check_content(checkpoint, training=loop == "fit_loop")
        check_positions(checkpoint, loop, getattr(trainer, loop).state_dict())
        check_run_state(checkpoint, needed=False)
        self._loading = checkpoint if loop == "fit_loop" else None

    def check_optimizers(self, trainer: Trainer) -> None:
        """Ask whether it is of these optimizers, now that they are made.

        Raises:
            NoisyLabelError: It is of others.
        """
        loading, self._loading = self._loading, None
        if loading is not None:
            schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
            check_optimizers(loading, trainer.optimizers, schedulers)

    def _note(self, trainer: Trainer, epoch: int, batch: int) -> None:
        exact = last_checkpoint(trainer)
        self.broken = {"epoch": epoch, "batch": batch, "exact": exact, "processes": trainer.world_size}

    def take_back(self, trainer: Trainer) -> None:
        """Let what was cut short begin again, and say what cannot be taken back."""
        self._loading, self.failed = None, False
        broken, self.broken = self.broken, None
        validating, self.validating = self.validating, False
        take_back_unfinished_batch(trainer)
        if validating:
            validate_again(trainer)
        if broken is not None:
            exact = broken["exact"] or "one that is written at the end of an epoch"
            others = "; what other processes had not shared is lost" if broken["processes"] > 1 else ""
            rank_zero_warn(
                f"The checkpoint was written inside batch {broken['batch']} of epoch {broken['epoch']}, which is "
                "trained again: what its step has left in batch-norm means, accumulated gradients, weights (after the "
                f"optimizer's step) and random streams (beside StepSeed) stays{others}; an exact checkpoint is {exact}."
            )
