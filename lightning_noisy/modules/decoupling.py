"""Decoupling: when to update is decided apart from how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_count
from lightning_noisy.modules.multi_network import MultiNetworkModule


class Decoupling(MultiNetworkModule):
    """Two networks that learn from the samples for which they predict different classes, and from no others.

    A batch on which they agree teaches nothing: its loss is zero. Logged is ``selection/size`` and, with known clean
    labels, ``precision`` and ``recall``.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss; the paper has cross entropy.
        num_classes: K.
        warmup_epochs: Epochs in which both learn from everything.
        **options: ``optimizer``, ``lr_scheduler``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Malach and Shalev-Shwartz, Decoupling "when to update" from "how to update", NeurIPS 2017. Its code, on other
        data, collects disagreeing samples until they fill a batch.

    Example::

        module = Decoupling(ResNet18, LinearHead, torch.nn.CrossEntropyLoss(), num_classes=10)
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_count(warmup_epochs, "warmup_epochs", least=0)
        self.warmup_epochs = warmup_epochs

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        outputs = self.all_outputs(batch.images)
        apart = self.disagreement(outputs)
        learned = torch.ones_like(apart) if self.current_epoch < self.warmup_epochs else apart
        self.note_selection(learned, batch)
        first, second = (self.selected_mean(own, learned) for own in self.all_losses(outputs, batch))
        return first + second
