"""Losses that know which samples they see, and in which epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lightning_noisy.losses._context import required
from lightning_noisy.losses._target import check_target
from lightning_noisy.losses.base import NoisyLabelLoss


class PerEpochLoss(NoisyLabelLoss, ABC):
    """Base of the losses that also depend on the samples' positions and on the epoch: a subclass says how.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch, as in torch.
    """

    requires: ClassVar[tuple[str, ...]] = ("index", "epoch")

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        """The loss of each sample, (B,), with the arguments as they are now; in training it may write tables."""

    def forward(
        self, logits: Tensor, target: Tensor, *, index: Tensor | None = None, epoch: int | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,).
            index: Positions of the samples in the training set, int64 (B,).
            epoch: Number of the epoch, from 0.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: No index or epoch, a target that is not int64 labels (B,), arguments that do not fit, or a
                table that nobody has attached.
        """
        index, epoch = required(self, "index", index), required(self, "epoch", epoch)
        check_target(self, logits, target)
        return self.reduce(self.losses(logits, target, index, epoch))
