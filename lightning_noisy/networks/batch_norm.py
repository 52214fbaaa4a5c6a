"""Batch normalization of features that survives a last training batch of one sample."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LoneSampleBatchNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that accepts a training batch with one value per channel.

    One value has no variance, so torch refuses it, and a training set of ``n * batch_size + 1`` samples fails at the
    end of its first epoch. Here a lone training sample is normalized with the running statistics, which it leaves
    unchanged (``num_batches_tracked`` too); weight and bias get their gradients as ever. Every other batch, and all of
    evaluation, is ``nn.BatchNorm1d`` itself. Arguments and state-dict keys are those of ``nn.BatchNorm1d``.

    Without running statistics (``track_running_stats=False``) a lone sample is refused by torch as before.

    Shape:
        (B, D) or (B, D, L) to the same shape.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input`` (B, D) or (B, D, L)."""
        lone = input.numel() == self.num_features
        if not (self.training and lone) or self.running_mean is None:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
