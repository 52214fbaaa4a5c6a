"""The module: backbone, head and loss, and nothing of any method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError
from typing_extensions import override

from lightning_noisy.checks import DeferredChecks, check_labels
from lightning_noisy.data.batch import unpack_batch
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.state import EpochFigures, EpochSums, StoreGroup, TrainingSet
from lightning_noisy.trainer import checkpoint_is_due, from_datamodule, log_interval, starts_afresh, training_dataset

_STATE = "lightning_noisy"
_TOP_K = 5
_TOP_K_FROM_CLASSES = 10


class NoisyLabelModule(LightningModule):
    """A classifier for noisy labels: any backbone, head and loss. Methods join as losses and callbacks.

    Training batches are ``(images, target, index)``, evaluation batches ``(images, target)``. Where the images of a
    training batch are a list of views, each (B, C, H, W), all pass through the network together, so that batch
    normalisation sees them as one batch; the loss gets the logits and features of the first view, and as ``views`` the
    logits of all, a tuple of tensors (B, K). Validation and test log
    accuracy, top-5 accuracy when K > 10, expected calibration error and cross entropy, whatever the training loss.
    ``predict_step`` gives probabilities.

    Args:
        backbone: Maps images (B, C, H, W) to features (B, D), with an int attribute ``num_features`` = D.
        head: Makes the classifier from (D, K), e.g. ``LinearHead``; K plus the ``extra_outputs`` of the loss, if any.
        loss: A loss of this package, or any torch criterion ``loss(logits, target)``.
        num_classes: K, at least 2.
        optimizer: Makes the optimizer from parameters; Adam by default.
        lr_scheduler: Makes the scheduler from the optimizer; stepped once an epoch. A ``ReduceLROnPlateau`` of
            Lightning's CLI names its ``monitor``.

    Raises:
        NoisyLabelError: K < 2; a backbone without ``num_features`` or with another width; labels outside [0, K); a
            non-finite loss; at fit, a checkpoint of another data set.

    Example::

        module = NoisyLabelModule(ResNet18(), LinearHead, GeneralizedCrossEntropy(q=0.7), num_classes=10)
        Trainer(max_epochs=100, callbacks=[SELC()]).fit(module, datamodule=CIFAR10DataModule(SymmetricNoise(0.4)))
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        check_count(num_classes, "num_classes", 2)
        self.save_hyperparameters(ignore=["backbone", "loss", "head", "optimizer", "lr_scheduler"])
        self.num_classes = num_classes
        self.backbone = backbone
        self.head = head(_num_features(backbone), num_classes + getattr(loss, "extra_outputs", 0))
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        if isinstance(loss, NoisyLabelLoss):
            loss.bind(_num_features(backbone), num_classes)
        self.evaluation = nn.ModuleDict({split: self._metrics() for split in ("val", "test")})
        self._stores = StoreGroup(type(loss).__name__)
        self._sums = EpochSums()
        self._epochs = EpochFigures(self._epoch_figures)
        self._checks = DeferredChecks()

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Training figures of each finished epoch: epoch -> name -> value."""
        return self._epochs.history

    @override
    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to logits (B, K), without the extra outputs that a loss may have asked for."""
        return cast(Tensor, self.head(self.features(images)))[:, : self.num_classes]

    def features(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to features (B, D).

        Raises:
            NoisyLabelError: The backbone's output is not (B, ``num_features``).
        """
        features = cast(Tensor, self.backbone(images))
        width = _num_features(self.backbone)
        if features.ndim != 2 or features.shape[1] != width:
            raise NoisyLabelError(
                f"{type(self.backbone).__name__}.num_features is {width}, but its output has shape "
                f"{tuple(features.shape)}: wanted (B, {width}); set `num_features` to the real width, or flatten."
            )
        return features

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, target, index = unpack_batch(batch)
        features = self.features(torch.cat(list(images)) if isinstance(images, (tuple, list)) else images)
        views = self.head(features).split(len(index))
        loss = self.training_loss(views[0], target, index=index, features=features[: len(index)], views=views)
        self._record(loss, views[0], target, index, batch_idx)
        return loss

    def training_loss(self, logits: Tensor, target: Tensor, **context: Any) -> Tensor:
        """The loss in float32 also under autocast, with exactly the keywords that it ``requires``."""
        requires = getattr(self.loss, "requires", ())
        offered = {"epoch": self.current_epoch, "total_epochs": self.trainer.max_epochs, **context}
        offered["parameters"] = self.parameters()
        if unknown := set(requires) - set(offered):
            raise NoisyLabelError(f"{type(self.loss).__name__} requires {unknown}, which this module does not offer.")
        passed = {name: _wide_context(offered[name]) for name in requires}
        with torch.autocast(logits.device.type, enabled=False):
            return cast(Tensor, self.loss(_wide(logits), target, **passed))

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        splits = from_datamodule(self.trainer, "validation_splits") or ("val",)
        check_argument(dataloader_idx < len(splits), "val_dataloaders", f"{len(splits)} loaders: {splits}", "more")
        self._evaluate(splits[dataloader_idx], batch)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        splits = from_datamodule(self.trainer, "test_splits") or ("test",)
        check_argument(dataloader_idx < len(splits), "test_dataloaders", f"{len(splits)} loaders: {splits}", "more")
        self._evaluate(splits[dataloader_idx], batch)

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities (B, K) of a batch of images, alone or first in a tuple."""
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        return _wide(self(images)).softmax(dim=1)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.parameters())
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = self.make_lr_scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": config})

    @override
    def configure_callbacks(self) -> list[Callback]:
        attached: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        present = any(isinstance(callback, _ShareBeforeCheckpoint) for callback in attached)
        return [] if present else [_ShareBeforeCheckpoint()]

    def share_state(self) -> None:
        """Bring what all processes know to rank 0, which writes checkpoints: a collective."""
        self._stores.synchronize(within_epoch=True)
        self._sums.merge()

    @override
    def setup(self, stage: str) -> None:
        for split in from_datamodule(self.trainer, "validation_splits") or ():
            if split not in self.evaluation:
                self.evaluation[split] = self._metrics()

    @override
    def on_fit_start(self) -> None:
        classes = from_datamodule(self.trainer, "num_classes")
        if classes is not None and classes != self.num_classes:
            raise NoisyLabelError(
                f"The data module has {classes} classes, but the module was made with num_classes={self.num_classes}."
            )

    @override
    def on_train_start(self) -> None:
        dataset = training_dataset(self.trainer, type(self).__name__)
        labels = known_labels(dataset)
        if labels is not None:
            check_labels(labels, self.num_classes, "the training labels")
        self._epochs.begin(self.trainer)
        if starts_afresh(self.trainer):
            self._sums.reset()
        self._stores.begin(TrainingSet.of(dataset), starts_afresh(self.trainer), self.device)
        if isinstance(self.loss, NoisyLabelLoss):
            shapes = self.loss.memory_shapes(self.num_classes)
            self.loss.memory = {n: self._stores.table(n, shape, device=self.device) for n, shape in shapes.items()}

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._epochs.enter(self.trainer)

    @override
    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._checks.settle()
            self.share_state()

    @override
    def on_train_epoch_end(self) -> None:
        self._checks.settle()
        self._epochs.leave(self.trainer)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._checks.settle()
        checkpoint[_STATE] = {
            "stores": self._stores.state_dict(),
            "sums": self._sums.state_dict(),
            "epochs": self._epochs.state_dict(),
        }

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if _STATE in checkpoint:
            self._stores.load_state_dict(checkpoint[_STATE]["stores"])
            self._sums.load_state_dict(checkpoint[_STATE]["sums"])
            self._epochs.load_state_dict(checkpoint[_STATE]["epochs"])

    def _metrics(self) -> nn.ModuleDict:
        classes = self.num_classes
        metrics: dict[str, Metric] = {
            "acc": MulticlassAccuracy(classes, average="micro"),
            "ece": MulticlassCalibrationError(classes, n_bins=15),
            "loss": MeanMetric(),
        }
        if classes > _TOP_K_FROM_CLASSES:
            metrics["acc_top5"] = MulticlassAccuracy(classes, average="micro", top_k=_TOP_K)
        return nn.ModuleDict(metrics)

    def _evaluate(self, split: str, batch: Any) -> None:
        images, target = batch[0], batch[1]
        logits = _wide(self(images))
        metrics = cast(nn.ModuleDict, self.evaluation[split])
        for name, module in metrics.items():
            metric = cast(Metric, module)
            if isinstance(metric, MeanMetric):
                metric.update(F.cross_entropy(logits, target), weight=len(target))
            else:
                metric.update(logits.softmax(dim=1), target)
            self.log(f"{split}/{name}", metric, prog_bar=name == "acc", add_dataloader_idx=False)

    def _record(self, loss: Tensor, logits: Tensor, target: Tensor, index: Tensor, batch_idx: int) -> None:
        epoch = self.current_epoch
        self._checks.require(
            loss.detach().isfinite(),
            lambda: (
                f"The training loss is not finite in epoch {epoch}, batch {batch_idx}, samples {index.tolist()[:8]}: "
                "lower the learning rate, clip gradients, or look at these inputs."
            ),
        )
        if (batch_idx + 1) % log_interval(self.trainer) == 0:
            self._checks.settle()
        accuracy = (logits.detach()[:, : self.num_classes].argmax(dim=1) == target).float().mean()
        self._sums.add(len(target), loss=loss, acc=accuracy)
        self.log("train/loss_step", loss, prog_bar=True)

    def _epoch_figures(self) -> dict[str, float]:
        """Merge tables, and the means of the epoch."""
        self._stores.synchronize()
        means = {f"train/{name}": mean for name, mean in self._sums.means().items()}
        self._sums.reset()
        return means


class _ShareBeforeCheckpoint(Callback):
    """Callbacks, ModelCheckpoint among them, are done with a batch before the module's own hook is called."""

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if checkpoint_is_due(trainer):
            cast(NoisyLabelModule, pl_module).share_state()


def _num_features(backbone: nn.Module) -> int:
    width = getattr(backbone, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise NoisyLabelError(
            f"{type(backbone).__name__} has no `num_features`: set it to the width D of the features (B, D) that it "
            "returns, or use `lightning_noisy.networks.TorchvisionBackbone`."
        )
    return width


def _wide(values: Tensor) -> Tensor:
    """Half precision to float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _wide_context(value: Any) -> Any:
    """Half precision to float32 in a tensor and in a tuple of them; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_wide(part) for part in value)
    return _wide(value) if isinstance(value, Tensor) else value
