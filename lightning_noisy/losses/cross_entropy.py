"""Cross entropy with a factor, an addend or a shorter series."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import focal_loss, poly1_cross_entropy, taylor_cross_entropy
from lightning_noisy.losses.base import NoisyLabelLoss


class FocalLoss(NoisyLabelLoss):
    r"""Focal loss (FL): cross entropy that counts less the surer the network is of the label.

    .. math:: \mathcal{L} = -(1 - p_y)^\gamma \log p_y, \qquad p = \operatorname{softmax}(z)

    Not robust by itself: hard samples, wrong labels among them, count more. :class:`NormalizedFocalLoss` is.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). ``gamma`` is a plain attribute: set it between steps to schedule
    it.

    Reference: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

    Where public code differs: that of Active-Passive Losses (Ma et al., ICML 2020) and of Active Negative Losses (Ye et
    al., NeurIPS 2023), whose tables have focal loss as a baseline, takes the factor as a constant: ``detach=True``.

    Args:
        gamma: Exponent, finite and at least 0. Published with noisy labels: 0.5.
        detach: Whether the factor :math:`(1 - p_y)^\gamma` is a constant to the gradient; not in the paper.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> FocalLoss(gamma=0.5)(torch.zeros(8, 4), torch.arange(8) % 4)  # sqrt(3 / 4) log 4
        tensor(1.2006)
    """

    def __init__(self, gamma: float = 0.5, detach: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= gamma < math.inf, "gamma", "a finite float >= 0", gamma)
        self.gamma = gamma
        self.detach = detach

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return focal_loss(logits, target, self.gamma, self.detach)


class TaylorCrossEntropy(NoisyLabelLoss):
    r"""Taylor cross entropy (TCE): the first terms of the series of cross entropy, between MAE and cross entropy.

    .. math::
        \mathcal{L}_t = \sum_{k=1}^{t} \frac{(1 - \max(p_y, \epsilon))^k}{k}, \qquad p = \operatorname{softmax}(z)

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits), with memory for B x t numbers. At ``order=1`` it is ``1 - p_y``.

    ``order`` is a plain attribute that a schedule sets to any float; it is rounded when used, and at least 1. The
    dynamic TCE of Dynamics-Aware Loss falls from 20 to 1: ``ParameterSchedule("loss.order", start=20, end=1)``; how the
    paper rounds is not known.

    Reference: L. Feng et al., "Can Cross Entropy Loss Be Robust to Label Noise?", IJCAI 2020.

    There is no official code. That of Dynamics-Aware Loss (Li et al., 2023) clips as above with ``eps`` 1e-6; the
    gradient is zero where it is clipped.

    Args:
        order: Number of terms t, finite and at least 1. Published by Dynamics-Aware Loss: 3 (CIFAR-10), 18 (CIFAR-100).
        eps: Floor of the probability in [0, 1); 0 for none.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> TaylorCrossEntropy(order=2)(torch.zeros(8, 4), torch.arange(8) % 4)  # 3 / 4 + 9 / 32
        tensor(1.0312)
    """

    def __init__(self, order: float, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(1 <= order < math.inf, "order", "a finite number >= 1", order)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        self.order = order
        self.eps = eps

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return taylor_cross_entropy(logits, target, max(1, round(self.order)), self.eps)


class Poly1CrossEntropy(NoisyLabelLoss):
    r"""Poly-1 cross entropy: another weight of the first term of the series of cross entropy.

    .. math:: \mathcal{L} = -\log p_y + \epsilon (1 - p_y), \qquad p = \operatorname{softmax}(z)

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). ``epsilon`` is a plain attribute: set it between steps to schedule
    it.

    Reference: Z. Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions", ICLR
    2022. Dynamics-Aware Loss (Li et al., 2023) has it in its table, not in its code.

    Args:
        epsilon: The weight that is added to that of the first term, which is 1; finite and at least -1. Published by
            Dynamics-Aware Loss: 10 (CIFAR-10), 2 (CIFAR-100).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> Poly1CrossEntropy(epsilon=2.0)(torch.zeros(8, 4), torch.arange(8) % 4)  # log 4 + 2 * 3 / 4
        tensor(2.8863)
    """

    def __init__(self, epsilon: float, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(-1.0 <= epsilon < math.inf, "epsilon", "a finite float >= -1", epsilon)
        self.epsilon = epsilon

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return poly1_cross_entropy(logits, target, self.epsilon)
