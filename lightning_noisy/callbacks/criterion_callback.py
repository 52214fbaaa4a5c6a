"""What callbacks at a criterion share: the pipeline, per-sample tables, figures of an epoch, resume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_noisy.data.batch import batch_index
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.state import StoreGroup, TrainingSet
from lightning_noisy.targets import TargetPipeline
from lightning_noisy.trainer import checkpoint_is_due, log_interval, log_late, starts_afresh, training_dataset


class CriterionCallback(Callback, ABC):
    """Base of the callbacks that change or watch the target at a criterion.

    A subclass joins the pipeline as changer or observer, writes rows of its tables in each training batch, and may
    give figures once an epoch. Everything is saved, also in the middle of an epoch, and refused at fit if it belongs to
    another training set.

    Args:
        criterion: Dotted name of the criterion module; None takes ``loss``, else ``criterion``.
        index_key: Where the batch holds the index; None takes the last entry of a tuple, or ``index`` of a dict.
    """

    def __init__(self, criterion: str | None = None, index_key: int | str | None = None) -> None:
        self.criterion = criterion
        self.index_key = index_key
        self.stores = StoreGroup(type(self).__name__)
        self.history: dict[int, dict[str, float]] = {}
        """Figures of each finished epoch: epoch -> name -> value."""
        self._open_epoch: int | None = None
        self._pipeline: TargetPipeline | None = None
        self._labels: Tensor | None = None

    @abstractmethod
    def join(self, pipeline: TargetPipeline) -> None:
        """Enter the pipeline as changer or observer."""

    def epoch_figures(self) -> dict[str, float]:
        """Figures of the epoch that ends, from tables that are equal on all processes. Called once an epoch."""
        return {}

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(criterion=self.criterion)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pipeline = TargetPipeline.of(pl_module, self.criterion)
        self.join(self._pipeline)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dataset = training_dataset(trainer, type(self).__name__)
        self._labels = known_labels(dataset)
        self.stores.begin(TrainingSet.of(dataset), starts_afresh(trainer), pl_module.device)
        if starts_afresh(trainer):
            self.history, self._open_epoch = {}, None

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        epoch = trainer.current_epoch
        if self._open_epoch not in (None, epoch):
            self._finish_epoch(trainer, pl_module, late=True)
        self._open_epoch = epoch
        assert self._pipeline is not None
        assert self.stores.training_set is not None
        index = batch_index(batch, self.index_key)
        self._pipeline.open(index, epoch, batch_idx, self.stores.training_set.num_samples, self._labels)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._pipeline is not None
        self._pipeline.close()
        self._pipeline.check_called()
        if (batch_idx + 1) % log_interval(trainer) == 0:
            self._pipeline.checks.settle()
        if checkpoint_is_due(trainer):
            self.stores.synchronize(within_epoch=True)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint may be written inside validation, by rank 0 alone.
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self._pipeline is not None:
            self._pipeline.close()
            self._pipeline.checks.settle()
            self.stores.synchronize(within_epoch=True)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._pipeline is not None
        self._pipeline.close()
        self._pipeline.checks.settle()
        if self._open_epoch is not None:
            self._finish_epoch(trainer, pl_module)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._pipeline is not None:
            self._pipeline.checks.settle()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"stores": self.stores.state_dict(), "history": dict(self.history), "open_epoch": self._open_epoch}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stores.load_state_dict(state_dict["stores"])
        self.history = dict(state_dict["history"])
        self._open_epoch = state_dict["open_epoch"]

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._leave()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()

    def __getstate__(self) -> dict[str, Any]:
        """Copies stand outside the pipeline that the original has joined."""
        return {**self.__dict__, "_pipeline": None}

    def _leave(self) -> None:
        if self._pipeline is not None:
            self._pipeline.remove(self)
            self._pipeline = None

    def _finish_epoch(self, trainer: Trainer, pl_module: LightningModule, late: bool = False) -> None:
        """Merge tables and record figures; ``late`` after a resume that skipped the end of the saved epoch."""
        assert self._open_epoch is not None
        self.stores.synchronize()
        figures = self.epoch_figures()
        if figures:
            self.history[self._open_epoch] = figures
        if late:
            log_late(trainer, figures, self._open_epoch)
        else:
            pl_module.log_dict(figures, sync_dist=True)  # equal on all processes already; without it Lightning warns
        self._open_epoch = None
