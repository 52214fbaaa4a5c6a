"""What all modules share: a strategy writes its step; recording, logging, evaluation, state and resume are here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.checkpoints.check import check_weights
from lightning_noisy.checks import check_labels
from lightning_noisy.data.batch import TrainingBatch, unpack_batch
from lightning_noisy.data.epoch_length import announce_length
from lightning_noisy.data.origins import check_same_names
from lightning_noisy.errors import check_kind
from lightning_noisy.functional.noise import check_num_classes
from lightning_noisy.losses import per_sample
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.checks import check_same_classes, not_a_scalar, not_finite
from lightning_noisy.modules.compiled import CompiledNetworks, compile_options
from lightning_noisy.modules.context import criterion_arguments
from lightning_noisy.modules.evaluated_module import EvaluatedModule
from lightning_noisy.modules.loading import NamesMissingParts
from lightning_noisy.modules.strategy_tools import StrategyTools
from lightning_noisy.networks.classifier import Outputs
from lightning_noisy.optim import scheduler_configs
from lightning_noisy.private_api import Callback
from lightning_noisy.state import LossStores, RunDriver, class_names_in_use, saved_class_names
from lightning_noisy.state.epoch_ends import close_skipped
from lightning_noisy.storage import Storage

NOT_SAVED = ("backbone", "loss", "head", "optimizer", "lr_scheduler", "storage", "compile")
"""Arguments that are no hyperparameters in a checkpoint: parts, and how a machine runs them."""


class StrategyModule(EvaluatedModule, StrategyTools, NamesMissingParts):
    """Base of the modules: a subclass holds its networks and criteria, and writes :meth:`step` and :meth:`forward`.

    In :meth:`step` a criterion is called by :meth:`training_loss` (its own reduction) or :meth:`sample_losses` (one
    value for each sample), **with the whole batch and the given labels; selection comes after**. Callbacks then see
    every sample, losses with memory keep every row, and what a strategy leaves out is its own business. Each network
    has a criterion of its own, and with it stores of its own. Terms with mixed or soft targets that the strategy makes
    itself use functions (:mod:`lightning_noisy.functional.losses`), which no callback changes.

    Training batches are ``(images, target, index)``; with several training loaders, a dict or list of such batches.
    Evaluation batches are ``(images, target)``. Training logs ``train/loss`` and ``train/acc`` (of the given labels,
    over all calls of criteria); validation and test log accuracy, top-5 accuracy when K > 10, expected calibration
    error, cross entropy and the number of classes that are predicted, of :meth:`forward`, whatever the training loss,
    and with a backdoor in the data its success. ``predict_step`` gives probabilities.

    Args:
        num_classes: K, at least 2.
        optimizer: Makes the optimizer from all parameters.
        lr_scheduler: Makes the scheduler from the optimizer; stepped once an epoch, a
            :class:`~lightning_noisy.optim.Warmup` with each optimizer step too.
        storage: How a strategy keeps the rows of samples that are its own; None in whole float32 rows.
        compile: Whether backbones and heads are compiled while a fit lasts, validation included; or keyword arguments
            of ``torch.compile``, such as ``{"mode": "reduce-overhead"}``. Batches of all sizes share what is compiled.

    Raises:
        NoisyLabelError: K < 2; labels outside [0, K); a loss that is not finite or no scalar; a ``storage`` that the
            strategy cannot live with; ``compile`` without a compiler; at fit, other data.
    """

    def __init__(
        self,
        num_classes: int,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        storage: Storage | None = None,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        check_num_classes(num_classes)
        check_kind(callable(optimizer), "optimizer", "a class or function that makes one of parameters", optimizer)
        super().__init__(num_classes)
        self.keep_rows(storage)
        self.compile_options = compile_options(compile)
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.class_names: tuple[str, ...] | None = None
        """Names of the classes that its weights were trained on, where data or checkpoint tell them."""
        self.loss_stores = LossStores()
        """What its losses keep."""
        self._hits: list[Tensor] = []

    @abstractmethod
    def step(self, batch: Any) -> Tensor:
        """The loss of a training batch.

        Args:
            batch: A :class:`~lightning_noisy.data.batch.TrainingBatch`; with several training loaders, a dict of them
                by the loaders' names or positions.

        Returns:
            Scalar. Where there is nothing to learn from, zero times something that has a gradient.
        """

    def prepare_epoch(self, epoch: int) -> None:
        """What happens at the start of an epoch, before its first batch is loaded. Once an epoch, also over resumes.

        Args:
            epoch: Number of the epoch, from 0.
        """

    def after_step(self) -> None:
        """What happens after each step of the optimizer."""

    def training_loss(self, loss: nn.Module, outputs: Outputs, batch: TrainingBatch) -> Tensor:
        """The loss of a network on a batch with its given labels, reduced as the criterion does.

        It is computed in float32 also under autocast, and the criterion gets exactly the keywords that it ``requires``.

        Args:
            loss: The network's criterion, a submodule.
            outputs: What the network says of the batch.
            batch: The batch.
        """
        run = self._run or self.run
        logits, target, context = criterion_arguments(loss, outputs, batch, self.current_epoch, run)
        with self._calling(outputs, batch):
            return cast(Tensor, loss(logits, target, **context))

    def sample_losses(self, loss: nn.Module, outputs: Outputs, batch: TrainingBatch) -> SampleLosses:
        """The same for each sample, (B,), with the weights that the criterion's own mean gives them."""
        run = self._run or self.run
        logits, target, context = criterion_arguments(loss, outputs, batch, self.current_epoch, run)
        with self._calling(outputs, batch):
            return per_sample(loss)(logits, target, **context)

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        unpacked = unpack_batch(batch)
        self._hits = []
        loss = self.step(unpacked)
        if loss.ndim:
            raise not_a_scalar(loss)
        parts = list(unpacked.values()) if isinstance(unpacked, Mapping) else [unpacked]
        self._record(loss, torch.cat([part.index for part in parts]), batch_idx)
        return loss

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if self.make_lr_scheduler is None:
            return optimizer
        return cast(OptimizerLRScheduler, ([optimizer], scheduler_configs(self.make_lr_scheduler(optimizer))))

    @override
    def configure_callbacks(self) -> list[Callback]:
        return [] if self.compile_options is None else [CompiledNetworks()]

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # `load_from_checkpoint(strict=False)` allows other names without telling the module.
        check_weights(checkpoint["state_dict"], self, names=self._trainer is not None)
        self.class_names = saved_class_names(checkpoint)

    @override
    def setup(self, stage: str) -> None:
        self._run = RunDriver.of(self.trainer)
        self._run.add(self.section)
        if stage != "fit" and self.trainer.ckpt_path is None:  # else the checkpoint is asked
            check_same_names(self.class_names, class_names_in_use(self.trainer))
        check_kind(not isinstance(getattr(self, "loss", None), type), "loss", "a module", getattr(self, "loss", None))
        self.find_splits()
        self.loss_stores.join(self._run, self)

    @override
    def on_fit_start(self) -> None:
        self.loss_stores.join(self.run, self)  # those that `configure_model` has made
        check_same_classes(self.trainer, self.num_classes)

    @override
    def on_train_start(self) -> None:
        self._follow_steps()
        self.class_names = self.run.origins.class_names
        if self.run.labels is not None:
            check_labels(self.run.labels, self.num_classes, "the training labels")
        if RunDriver.in_trainer(self.trainer) is None:  # a trial of Lightning's finders
            self.loss_stores.try_out(self.trainer, self.device)
            return
        self.loss_stores.begin()
        self.find_clean_labels()
        if not self.run.fresh:
            self._prepare()  # a resume from an epoch's last batch does not pass the start of the next one

    @override
    def on_train_end(self) -> None:
        if RunDriver.in_trainer(self.trainer) is None:
            self.loss_stores.begin()

    @override
    def on_train_epoch_start(self) -> None:
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        """Copies take part in no run."""
        return {**super().__getstate__(), "_hits": []}

    def _follow_steps(self) -> None:
        """Let optimizers tell of their steps, if anybody wants to know."""
        if getattr(self.after_step, "__func__", None) is not StrategyModule.after_step:
            for optimizer in self.trainer.optimizers:
                optimizer.register_step_post_hook(lambda *_: self.after_step())

    def _prepare(self) -> None:
        if self.run.prepared_epoch != self.current_epoch:
            close_skipped(self.trainer, self.run)
            self.run.prepared_epoch = self.current_epoch
            self.prepare_epoch(self.current_epoch)
            announce_length(self.trainer)

    @contextmanager
    def _calling(self, outputs: Outputs, batch: TrainingBatch) -> Iterator[None]:
        """Around the call of a criterion: callbacks know which samples it is about, and it computes in float32."""
        now = None if self._run is None else self._run.batch
        if now is not None:
            now.called = batch.index
        kind = outputs.logits.device.type
        try:
            with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
                yield
        finally:
            if now is not None:
                now.called = None
        if now is not None:
            predicted = outputs.logits.detach()[:, : self.num_classes].argmax(dim=1)
            self._hits.append((predicted == batch.target).float())

    def _record(self, loss: Tensor, index: Tensor, batch_idx: int) -> None:
        where = f"epoch {self.current_epoch}, batch {batch_idx}"
        run = self._run or self.run
        run.checks.require(loss.detach().isfinite(), lambda: not_finite(where, index))
        if run.batch is not None:
            hits = {"acc": torch.cat(self._hits)} if self._hits else {}
            self.section.sums.add(len(index), loss=loss, **hits)
        if self._is_seen(batch_idx) and not run.open_batch.repeated:
            self.log("train/loss_step", loss, prog_bar=True)

    def _is_seen(self, batch_idx: int) -> bool:
        """Whether a logger, or the progress bar, looks at what this step logs."""
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return batch_idx == 0 or (interval > 0 and (self.trainer.global_step + 1) % interval == 0)
