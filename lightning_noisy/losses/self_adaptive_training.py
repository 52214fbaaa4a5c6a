"""Self-adaptive training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import clipped_softmax, cross_entropy, one_hot
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage


class SelfAdaptiveTraining(NoisyLabelLoss):
    r"""Self-adaptive training (SAT): targets move towards the predictions, uncertain ones count less.

    The target :math:`t_i` of each training sample starts as the one-hot given label. In epochs
    :math:`e <` ``warmup_epochs`` the loss is cross entropy with the label; then, each time sample i is seen,

    .. math::
        t_i \leftarrow m\, t_i + (1 - m) \operatorname{softmax}(z_i), \qquad
        w_i = \frac{\max_k t_{ik}}{\frac{1}{B} \sum_j \max_k t_{jk}}, \qquad
        \mathcal{L}_i = -w_i \sum_k t_{ik} \log p_{ik}

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets. The targets are the store
    ``"target"``, whose rows are zero until a sample is first seen after the warm-up; it is written in training mode
    only. Each visit of a sample moves its target, also the second in an epoch; of a sample that stands twice in a batch
    the first entry does, and both have the target that it made.

    The weights are a statistic of the batch: with several processes it is that of all their samples, a collective that
    all of them enter, with batches of one size.

    Reference: L. Huang, C. Zhang and H. Zhang, "Self-Adaptive Training: beyond Empirical Risk Minimization", NeurIPS
    2020.

    The official code computes the same (its epochs count from 0 as well).

    Args:
        warmup_epochs: Epochs of cross entropy. Paper: 60 of 200.
        momentum: m, weight of the past in a target, in [0, 1). Paper: 0.9.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the index, the epoch or the attached store or
            gets another target.

    Example:
        >>> SelfAdaptiveTraining(warmup_epochs=60).store_shapes(num_classes=10)
        {'target': (10,)}
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        warmup_epochs: int = 60,
        momentum: float = 0.9,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_count(warmup_epochs, "warmup_epochs", 0)
        check_argument(0.0 <= momentum < 1.0, "momentum", "a float in [0, 1)", momentum)
        self.warmup_epochs = warmup_epochs
        self.momentum = momentum

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of targets.

        Args:
            num_classes: K.

        Returns:
            ``{"target": (K,)}``.
        """
        return {"target": (num_classes,)}

    def _targets(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """The targets of the samples, updated in training."""
        store = self.recall("target")
        rows = store.get(index)
        given = one_hot(target, logits.shape[1], dtype=rows.dtype)
        rows = torch.where(rows.sum(dim=1, keepdim=True) > 0, rows, given)
        if not self.training:
            return rows
        prediction = clipped_softmax(logits.detach(), 0.0).to(rows)
        return store.update(index, torch.lerp(prediction, rows, self.momentum))

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": self.warmup_epochs}

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        if epoch < self.warmup_epochs:
            return cross_entropy(logits, target)
        targets = self._targets(logits, target, index)
        losses = cross_entropy(logits, targets)
        certainty = targets.amax(dim=1).to(losses)
        return certainty / self.batch_mean(certainty) * losses
