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
from lightning_noisy.state import EpochFigures, StoreGroup, TrainingSet
from lightning_noisy.targets import TargetPipeline
from lightning_noisy.trainer import checkpoint_is_due, log_interval, starts_afresh, training_dataset


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
        self._epochs = EpochFigures(self._shared_figures)
        self._pipeline: TargetPipeline | None = None
        self._labels: Tensor | None = None

    @abstractmethod
    def join(self, pipeline: TargetPipeline) -> None:
        """Enter the pipeline as changer or observer."""

    def epoch_figures(self) -> dict[str, float]:
        """Figures of the epoch that ends, from tables that are equal on all processes. Called once an epoch."""
        return {}

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Figures of each finished epoch: epoch -> name -> value."""
        return self._epochs.history

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
        self._epochs.begin(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._epochs.enter(trainer)
        assert self._pipeline is not None
        assert self.stores.training_set is not None
        index = batch_index(batch, self.index_key)
        num_samples = self.stores.training_set.num_samples
        self._pipeline.open(index, trainer.current_epoch, batch_idx, num_samples, self._labels)

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
        self._epochs.leave(trainer)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._pipeline is not None:
            self._pipeline.checks.settle()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"stores": self.stores.state_dict(), **self._epochs.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stores.load_state_dict(state_dict["stores"])
        self._epochs.load_state_dict(state_dict)

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

    def _shared_figures(self) -> dict[str, float]:
        self.stores.synchronize()
        return self.epoch_figures()
