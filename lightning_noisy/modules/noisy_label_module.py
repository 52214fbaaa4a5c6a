"""One network and one loss: nothing of any method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.modules.strategy import NOT_SAVED, StrategyModule
from lightning_noisy.networks.classifier import Classifier


class NoisyLabelModule(StrategyModule):
    """A classifier for noisy labels: any backbone, head and loss. Methods join as losses and callbacks.

    Training batches are ``(images, target, index)``, evaluation batches ``(images, target)``. Where the images of a
    training batch are a list of views, each (B, C, H, W), all pass through the network together, so that batch
    normalization sees them as one batch; the loss gets the logits and features of the first view, and as ``views`` the
    logits of all, a tuple of tensors (B, K). What is logged and evaluated: see
    :class:`~lightning_noisy.modules.StrategyModule`.

    Args:
        backbone: Maps images (B, C, H, W) to features (B, D), with an int attribute ``num_features`` = D.
        head: Makes the classifier from (D, K), e.g. ``LinearHead``; K plus the ``extra_outputs`` of the loss, if any.
        loss: A loss of this package, or any torch criterion ``loss(logits, target)``.
        num_classes: K, at least 2.
        optimizer: Makes the optimizer from parameters; Adam by default.
        lr_scheduler: Makes the scheduler from the optimizer; stepped once an epoch. A ``ReduceLROnPlateau`` of
            Lightning's CLI names its ``monitor``.
        **options: ``compile``, see :class:`~lightning_noisy.modules.StrategyModule`, and ``storage`` of a strategy.

    Raises:
        NoisyLabelError: K < 2; a backbone without ``num_features`` or with another width; labels outside [0, K); a
            non-finite loss; at fit, a checkpoint of another data set.

    Example::

        module = NoisyLabelModule(ResNet18(), LinearHead, GeneralizedCrossEntropy(q=0.7), num_classes=10)
        Trainer(max_epochs=100, callbacks=[SELC()]).fit(module, datamodule=CIFAR10DataModule(noise=SymmetricNoise(0.4)))
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler, **options)
        self.save_hyperparameters(ignore=[*NOT_SAVED])
        self.network = Classifier(backbone, head, num_classes + getattr(loss, "extra_outputs", 0))
        self.loss = loss
        if isinstance(loss, NoisyLabelLoss):
            loss.bind(self.network.num_features, num_classes)

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        return self.training_loss(self.loss, self.network.outputs(batch.images), batch)

    @override
    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to logits (B, K), without the extra outputs that a loss may have asked for."""
        return cast(Tensor, self.network(images))[:, : self.num_classes]
