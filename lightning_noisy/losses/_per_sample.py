"""Losses that need nothing but logits and target."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lightning_noisy.losses._target import check_target
from lightning_noisy.losses.base import NoisyLabelLoss


class PerSampleLoss(NoisyLabelLoss, ABC):
    """Base of the losses that are a function of each sample's logits and target: a subclass says which.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch, as in torch.
    """

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (B,), with the arguments as they are now."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,), or floating-point targets (B, K) where the loss takes them.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: A target of another dtype or shape, or arguments that do not fit.
        """
        check_target(self, logits, target)
        return self.reduce(self.losses(logits, target))
