"""What Lightning tells a run's state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from lightning_noisy.data.batch import Batch, batch_index
from lightning_noisy.data.epoch_length import announce_length, check_length, follow_resume
from lightning_noisy.data.index_source import IndexSource
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.data.origins import Origins, check_same_names
from lightning_noisy.private_api import Callback, batches_begun
from lightning_noisy.state.around_run import reach_steps, record_loaders
from lightning_noisy.state.checkpoints import checkpoint_is_due
from lightning_noisy.state.class_names import class_names_in_use, saved_class_names
from lightning_noisy.state.delays import epochs_of_fit, warn_of_late
from lightning_noisy.state.epoch_ends import begin_again, close_skipped
from lightning_noisy.state.interruption import Interruption
from lightning_noisy.state.run_state import RunState
from lightning_noisy.state.sharding import check_shards, gather_rows_of
from lightning_noisy.state.training_set import training_set_of
from lightning_noisy.trainer_access import (
    log_interval,
    named_loaders,
    run_seed,
    training_loaders,
)


class RunDriver(Callback):
    """Drives the state of a run through Lightning's hooks, before all other callbacks, and saves it in checkpoints.

    Members ask for the state with :meth:`of` in their ``setup``; the first one puts the driver into the Trainer.

    A checkpoint that the last batch of an epoch has written makes Lightning skip the end of that epoch at resume. So an
    epoch stays open, also in the checkpoint, until its metrics are there; the next one closes it late, before a module
    prepares it, or at its first batch. An epoch without a batch is never opened.

    A checkpoint that is written inside a batch, as after an exception, holds what was kept before it: the batch comes
    again. So does a validation that has not ended.
    """

    def __init__(self) -> None:
        self.state = RunState()
        self._resuming = False
        self._log_every = 1
        self._source: IndexSource | None = None
        self._loaders: list[Any] = []
        self._around = ExitStack()
        self._interruption = Interruption()
        self._trained = self._looking = False
        self._sections: dict[str, Any] = {}

    @classmethod
    def of(cls, trainer: Trainer) -> RunState:
        """The state of the Trainer's run."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        found = cls.in_trainer(trainer)
        if found is None:
            found = cls()
            found._surround(trainer)
            trainer.callbacks = [found, *callbacks]  # type: ignore[attr-defined]  # Lightning goes through the old list
        return found.state

    @classmethod
    def in_trainer(cls, trainer: Trainer) -> RunDriver | None:
        """The Trainer's driver; None without one, as while Lightning's finders train without the callbacks."""
        return next((one for one in trainer.callbacks if isinstance(one, cls)), None)  # type: ignore[attr-defined]

    @property
    @override
    def state_key(self) -> str:
        return "lightning_noisy"

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._surround(trainer)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._looking = self._trained and trainer.state.fn != TrainerFn.FITTING
        self._interruption.check(trainer, checkpoint)
        check_same_names(saved_class_names(checkpoint), class_names_in_use(trainer))
        kept = checkpoint.get("callbacks", {}).get(self.state_key)
        if kept is not None:  # Lightning would copy all rows before it hands them on
            self._sections = {"sections": kept.pop("sections")}

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interruption.check_optimizers(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        needing = next((section.owner for section in self.state.sections.values() if section.per_sample), None)
        training_set = root = None
        if needing is not None:
            training_set, root = training_set_of(trainer, needing, self.state.index_keys)
        self._follow_loaders(trainer, root)
        reach_steps(trainer, pl_module, self.state, self._around)
        self._log_every = log_interval(trainer)
        if needing is not None:
            rank_zero_info(f"lightning_noisy tells training samples apart by {self._source}.")
        # Projects that seed each process differently still need one seed for masks and the like.
        seed = trainer.strategy.broadcast(run_seed(None))
        fresh = batches_begun(trainer) == 0
        known = Origins() if fresh else self.state.origins
        self.state.origins = known.following(root, class_names_in_use(trainer))
        self._interruption.take_back(trainer)
        self._resuming = self._trained = True
        follow_resume(trainer)
        self.state.begin(training_set, known_labels(root), fresh, pl_module.device, seed, trainer.max_epochs)
        self.state.spans.ends_after = None if getattr(trainer, "fast_dev_run", False) else epochs_of_fit(trainer)
        warn_of_late([*trainer.callbacks, *pl_module.modules()], self.state.spans.ends_after)  # type: ignore[attr-defined]

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        announce_length(trainer)  # of a selection that was made inside the epoch before
        if list(map(id, training_loaders(trainer))) != list(map(id, self._loaders)):
            root = None
            if self.state.training_set is not None:
                training_set, root = training_set_of(trainer, "This run", self.state.index_keys)
                self.state.follow(training_set, trainer.current_epoch)
            self._follow_loaders(trainer, root)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._resuming:
            self._resuming = False
            announce_length(trainer, begun=True)
        if batch_idx == 0:
            check_length(trainer)
        if batch_idx == 0 and self.state.open_epoch is not None:
            close_skipped(trainer, self.state)
            begin_again(trainer, self.state)
        assert self._source is not None
        if self._source.carried_by_one:
            indices: dict[str, Callable[[], Tensor]] = {"": partial(batch_index, batch)}
        else:
            indices = self._source.of_now(trainer, batch, batch_idx)
        self.state.enter_batch(Batch(batch, trainer.current_epoch, batch_idx, indices))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.state.end_batch()
        if self.state.checks.pending and (batch_idx + 1) % self._log_every == 0:
            self.state.checks.settle()
        if trainer.world_size > 1 and checkpoint_is_due(trainer):
            self.state.share()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint may be written inside validation, by rank 0 alone.
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._interruption.validating = True
            self.state.share()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interruption.validating = False

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Equal on all processes already; without `sync_dist` Lightning warns.
        pl_module.log_dict(self.state.close_epoch(), sync_dist=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.state.finish()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.state.checks.settle()
        broken = self._interruption.broken
        self._interruption.note(trainer, self.state.batch)
        if not self._interruption.failed:  # else the other processes are not here
            gather_rows_of(self.state.sections, checkpoint["callbacks"][self.state_key]["sections"])
        checkpoint["callbacks"][self.state_key] |= self._interruption.state_dict()
        self._interruption.broken = broken  # the batch may still come to its end

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.state.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        sections, self._sections = self._sections, {}
        if self._looking:  # `test` of an earlier checkpoint after a fit: what the run has come to stays
            return
        self.state.load_state_dict({**state_dict, **sections})
        self._interruption.load_state_dict(state_dict)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._interruption.fail(trainer, self.state.batch)
        self._end()

    def _surround(self, trainer: Trainer) -> None:
        """From now on loaders record which positions they hand out, if anybody asks for them."""
        self._around.close()
        if trainer.state.fn == TrainerFn.FITTING:
            record_loaders(trainer, self.state, self._around)

    def _follow_loaders(self, trainer: Trainer, root: Any) -> None:
        named = named_loaders(trainer)
        self._loaders, self._source = list(named.values()), IndexSource(named, root)
        check_shards(self.state.sections.values(), self._loaders)

    def _end(self) -> None:
        self._around.close()
        self.state.end()

    def __getstate__(self) -> dict[str, Any]:
        """Copies of a Trainer's callbacks start with a state of their own."""
        return vars(RunDriver())
