"""PENCIL: probabilistic end-to-end noise correction."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.collectives import process_count
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import cross_entropy, label_divergence, one_hot, pencil_loss
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage


class PencilLoss(NoisyLabelLoss):
    r"""PENCIL: the label of each training sample is a distribution that is learned with the network.

    Label logits :math:`l_i` start as ``scale`` times the one-hot given label, and :math:`d_i = \operatorname{softmax}
    (l_i)`. Training has three stages, by epochs e from 0:

    .. math::
        \mathcal{L} = \begin{cases}
        -\log p_y & e < \text{warmup\_epochs} \\
        \frac{1}{C} \operatorname{KL}(p \,\|\, d) + \alpha\, \mathcal{L}_o + \frac{\beta}{C} H(p)
        & \text{then, and}\quad l_i \leftarrow l_i - \frac{\lambda}{B} \frac{\partial \mathcal{L}_i}{\partial l_i} \\
        \frac{1}{C} \operatorname{KL}(p \,\|\, d) & e \ge \text{fixed\_from\_epoch}
        \end{cases}

    In the second stage a sample's loss is that of its label logits before the step they take.

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets. The store ``"label_logits"``
    holds what :math:`l_i` has moved away from its start; it is written in training mode only. Each visit of a sample
    takes a step, also the second in an epoch; of a sample that stands twice in a batch the first entry does, and both
    have the loss before it. B is the batch of all processes, which have batches of one size.

    Reference: K. Yi and J. Wu, "Probabilistic End-to-end Noise Correction for Learning with Noisy Labels", CVPR 2019.

    How the official code differs from the paper: ``form="code"`` has C = K, since both means run over the classes as
    well, and :math:`\mathcal{L}_o` takes d for logits, :math:`-\log \operatorname{softmax}(d)_y`. The published numbers
    belong to it. ``form="paper"`` has C = 1 and :math:`\mathcal{L}_o = -\log d_y`. That code steps the label logits
    after the network, with the same gradients; the learning rates of its stages (0.06, 0.06, then 0.2) are the
    scheduler's part, and its last stage really has 0 from epoch 240 on.

    Args:
        alpha: Weight of the compatibility with the given label, finite and at least 0. Published: 0.4 (CIFAR-10).
        beta: Weight of the entropy, finite and at least 0. Published: 0.1 (CIFAR-10).
        label_lr: :math:`\lambda`, learning rate of the label logits, finite and more than 0. Published: 600 (CIFAR-10).
        warmup_epochs: Epochs of cross entropy. Published: 70.
        fixed_from_epoch: First epoch of the last stage, at least ``warmup_epochs``. Published: 200, of 320.
        scale: Start of the label logits, finite and more than 0. Published: 10.
        form: ``"code"`` or ``"paper"``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; the label logits do not depend on it.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the index, the epoch or the attached store or
            gets another target.

    Example:
        >>> PencilLoss().store_shapes(num_classes=10)
        {'label_logits': (10,)}
    """

    def __init__(
        self,
        alpha: float = 0.4,
        beta: float = 0.1,
        label_lr: float = 600.0,
        warmup_epochs: int = 70,
        fixed_from_epoch: int = 200,
        scale: float = 10.0,
        form: str = "code",
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        check_argument(0.0 < label_lr < math.inf, "label_lr", "a finite float > 0", label_lr)
        check_count(warmup_epochs, "warmup_epochs", 0)
        wanted = f"at least warmup_epochs={warmup_epochs}"
        check_argument(fixed_from_epoch >= warmup_epochs, "fixed_from_epoch", wanted, fixed_from_epoch)
        check_argument(0.0 < scale < math.inf, "scale", "a finite float > 0", scale)
        check_argument(form in ("code", "paper"), "form", "'code' or 'paper'", form)
        self.alpha = alpha
        self.beta = beta
        self.label_lr = label_lr
        self.warmup_epochs = warmup_epochs
        self.fixed_from_epoch = fixed_from_epoch
        self.scale = scale
        self.form = form

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of label logits.

        Args:
            num_classes: K.

        Returns:
            ``{"label_logits": (K,)}``.
        """
        return {"label_logits": (num_classes,)}

    def _label_logits(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        moved = self.recall("label_logits").get(index)
        return moved + self.scale * one_hot(target, logits.shape[1], dtype=moved.dtype)

    def _with_labels(self, logits: Tensor, target: Tensor, label_logits: Tensor) -> Tensor:
        return pencil_loss(logits, target, label_logits, self.alpha, self.beta, self.form)

    def _step(self, logits: Tensor, target: Tensor, index: Tensor, label_logits: Tensor) -> None:
        """Move the label logits down their own gradient."""
        with torch.enable_grad():
            leaf = label_logits.detach().requires_grad_()
            losses = self._with_labels(logits.detach(), target, leaf)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        store, rate = self.recall("label_logits"), self.label_lr / (len(target) * process_count())
        store.update(index, store.get(index) - rate * gradient)

    def begins_at(self) -> dict[str, int]:
        """The arguments that delay something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": self.warmup_epochs, "fixed_from_epoch": self.fixed_from_epoch}

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        if epoch < self.warmup_epochs:
            return cross_entropy(logits, target)
        label_logits = self._label_logits(logits, target, index)
        if epoch >= self.fixed_from_epoch:
            classes = logits.shape[1] if self.form == "code" else 1
            return label_divergence(logits, label_logits) / classes
        if self.training:
            self._step(logits, target, index, label_logits)
        return self._with_labels(logits, target, label_logits)
