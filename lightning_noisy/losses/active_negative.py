"""Active negative losses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses import (
    ACTIVE_NEGATIVE,
    absolute_sum,
    active_negative_loss,
    normalized_negative_cross_entropy,
)
from lightning_noisy.losses._target import check_target
from lightning_noisy.losses.base import NoisyLabelLoss


class NormalizedNegativeCrossEntropy(NoisyLabelLoss):
    r"""Normalized negative cross entropy (NNCE): a robust passive loss that is no scaled MAE.

    .. math::
        \mathcal{L}_{NNCE} = 1 - \frac{r_y}{\sum_k r_k}, \qquad r_k = A + \log \operatorname{clip}(p_k, \epsilon, 1),
        \quad A = -\log \epsilon, \quad p = \operatorname{softmax}(z)

    Each :math:`r_k` is A minus the cross entropy with label k, so low where that loss is high. A passive loss. At least
    one :math:`p_k` is 1 / K or more, so the sum is never 0.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [0, 1]. A sample whose :math:`p_y` is below
    :math:`\epsilon` has the value 1 and no gradient: it teaches nothing.

    Reference: X. Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.

    The official code clips as above with ``eps`` 1e-7; only its variant with an entropy term clips at 1 - 1e-7 as well.

    Args:
        eps: Floor of the probability, in (0, 1 / (2 K)].
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range (``eps`` for the number of classes, in ``forward``), or ``forward``
            gets another target.

    Example:
        >>> import torch
        >>> NormalizedNegativeCrossEntropy()(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 - 1 / K
        tensor(0.7500)
    """

    def __init__(self, eps: float = 1e-7, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < eps < 0.5, "eps", "a float in (0, 1 / (2 K)]", eps)
        self.eps = eps

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,).

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: ``eps`` is too large for K, or the target is not int64 labels (B,).
        """
        largest = 0.5 / logits.shape[1]
        check_argument(self.eps <= largest, "eps", f"at most 1 / (2 K) = {largest:.3g} for these logits", self.eps)
        check_target(self, logits, target)
        return self.reduce(normalized_negative_cross_entropy(logits, target, self.eps))


class ActiveNegativeLoss(NoisyLabelLoss):
    r"""Active negative loss (ANL): a normalised loss, its negative counterpart and an L1 penalty on the weights.

    .. math::
        \mathcal{L} = \alpha \mathcal{L}_{NCE} + \beta \mathcal{L}_{NNCE} + \delta \sum_w |w|

    with :class:`NormalizedCrossEntropy`, :class:`NormalizedNegativeCrossEntropy` and w all entries of all parameters.
    The penalty is against overfitting and replaces weight decay: **give the optimizer** ``weight_decay=0``.

    ``forward(logits, target, parameters=model.parameters())`` takes logits (B, K) of any floating dtype, int64 labels
    (B,), no soft targets, and the tensors to be penalised: in a NoisyLabelModule all parameters of the module, biases,
    batch normalisation, frozen ones and those of the loss included. They have to be on one device. The penalty is part
    of each sample's loss: without reduction it is in every entry, ``"mean"`` has it once and ``"sum"`` B times. With
    ``delta=0`` no parameters are needed or looked at. It computes in float32 (float64 for float64 logits). ``alpha``,
    ``beta`` and ``delta`` are plain attributes: set them between steps to schedule them.

    Reference: X. Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.

    As in the official code the penalty includes biases and batch normalisation. That code clips the gradient's norm at
    5 (``Trainer(gradient_clip_val=5.0)``) and adds the penalty to its test loss as well; evaluation here reports cross
    entropy. Its further variant with an entropy term on the batch's mean prediction is not part of this loss.

    Args:
        alpha: Weight of the normalised loss, finite and at least 0. Paper: 1 (MNIST), 5 (CIFAR-10), 10 (CIFAR-100),
            20 (WebVision).
        beta: Weight of the normalised negative loss, finite and at least 0. Paper: 5 (CIFAR-10), 1 elsewhere.
        delta: Weight of the penalty, finite and at least 0. Paper: 1e-6 (MNIST), 5e-5 (CIFAR-10), 5e-7 (CIFAR-100),
            5e-6 (WebVision).
        base: The loss that is normalised: ``"ce"``, cross entropy.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target or, with ``delta`` above 0, no
            parameters.

    Example:
        >>> import torch
        >>> loss = ActiveNegativeLoss(alpha=5.0, beta=5.0, delta=0.01)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4, parameters=[torch.full((3,), -2.0)])  # 5 + 0.01 * 6
        tensor(5.0600)
    """

    requires: ClassVar[tuple[str, ...]] = ("parameters",)

    def __init__(self, alpha: float, beta: float, delta: float, base: str = "ce", reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        check_argument(0.0 <= delta < math.inf, "delta", "a finite float >= 0", delta)
        check_argument(base in ACTIVE_NEGATIVE, "base", " or ".join(map(repr, ACTIVE_NEGATIVE)), base)
        self.alpha = alpha
        self.beta = beta
        self.delta = delta
        self.base = base

    def forward(self, logits: Tensor, target: Tensor, *, parameters: Iterable[Tensor] | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,).
            parameters: The tensors to be penalised, walked once.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: The target is not int64 labels (B,), or there is nothing to penalise.
        """
        check_target(self, logits, target)
        losses = active_negative_loss(logits, target, self.alpha, self.beta, self.base)
        if self.delta > 0.0:
            losses = losses + self.delta * self._penalty(parameters)
        return self.reduce(losses)

    def _penalty(self, parameters: Iterable[Tensor] | None) -> Tensor:
        tensors = tuple(parameters or ())
        if not tensors:
            raise NoisyLabelError(
                "ActiveNegativeLoss expects the parameters of the network, but got none: pass "
                "`parameters=model.parameters()`, anew at each call since it can be walked once only, or use the loss "
                "in a NoisyLabelModule."
            )
        return absolute_sum(tensors)
