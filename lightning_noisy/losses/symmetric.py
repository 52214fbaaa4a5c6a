"""Mean absolute error, reverse and symmetric cross entropy."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import mean_absolute_error, reverse_cross_entropy, symmetric_cross_entropy
from lightning_noisy.losses.base import NoisyLabelLoss


class MeanAbsoluteError(NoisyLabelLoss):
    r"""Mean absolute error (MAE): bounded and symmetric over the labels, so robust to noise, and slow to learn.

    .. math:: \mathcal{L}_{MAE} = s\,(1 - p_y) = \frac{s}{2} \sum_k |p_k - q_k|, \qquad p = \operatorname{softmax}(z)

    with q the one-hot row of y. A passive loss: it lowers the probabilities of the other labels.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets, for
    which the two forms differ (``GeneralizedCrossEntropy(q=1.0, eps=0.0)`` is the first, averaged over the label); it
    computes in float32 (float64 for float64 logits).

    Reference: A. Ghosh, H. Kumar and P. S. Sastry, "Robust Loss Functions under Label Noise for Deep Neural Networks",
    AAAI 2017.

    Where public code differs: scale 2 is the literal sum of absolute differences of the paper and of the code of
    Asymmetric Loss Functions (Zhou et al., ICML 2021) and of sparse regularization (Zhou et al., ICCV 2021). The code
    of Active-Passive Losses (Ma et al., ICML 2020) has scale 1, and NCE+MAE has it in all three.

    Args:
        scale: The factor s, finite and more than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> MeanAbsoluteError()(torch.zeros(8, 4), torch.arange(8) % 4)
        tensor(0.7500)
    """

    def __init__(self, scale: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < scale < math.inf, "scale", "a finite float > 0", scale)
        self.scale = scale

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return mean_absolute_error(logits, target, self.scale)


class ReverseCrossEntropy(NoisyLabelLoss):
    r"""Reverse cross entropy (RCE): prediction and target change places; robust to noise like MAE, which it scales.

    .. math::
        \mathcal{L}_{RCE} = -\sum_k \operatorname{clip}(p_k, \epsilon, 1) \log \operatorname{clip}(q_k, \epsilon_q, 1),
        \qquad p = \operatorname{softmax}(z)

    For a label, with q its one-hot row, it is :math:`-\log(\epsilon_q) (1 - p_y)` up to the clip of p. A passive loss.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets q (B, K); it computes in float32 (float64 for float64 logits).

    Reference: Y. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.

    The paper writes :math:`A = -4` for log 0. Its code and that of Active-Passive Losses have the floor 1e-4, whose
    natural logarithm is -9.2103, and clip the prediction at 1e-7; so does this class. The gradient is zero where it is
    clipped.

    Args:
        eps: Floor of the probability, in [0, 1); 0 for none.
        label_floor: Floor of the target inside its logarithm, in (0, 1). ``exp(-4)`` would be the paper's text.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> ReverseCrossEntropy()(torch.zeros(8, 4), torch.arange(8) % 4)  # 9.2103 * 3 / 4
        tensor(6.9078)
    """

    soft_targets = True

    def __init__(self, eps: float = 1e-7, label_floor: float = 1e-4, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        check_argument(0.0 < label_floor < 1.0, "label_floor", "a float in (0, 1)", label_floor)
        self.eps = eps
        self.label_floor = label_floor

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return reverse_cross_entropy(logits, target, self.eps, self.label_floor)


class SymmetricCrossEntropy(NoisyLabelLoss):
    r"""Symmetric cross entropy (SCE): cross entropy, which learns, plus reverse cross entropy, which resists noise.

    .. math::
        \mathcal{L} = -\alpha \sum_k q_k \log p_k
        - \beta \sum_k \operatorname{clip}(p_k, \epsilon, 1) \log \operatorname{clip}(q_k, \epsilon_q, 1),
        \qquad p = \operatorname{softmax}(z)

    with q the one-hot row of a label, or the target distribution.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets (B, K); it computes in float32 (float64 for float64 logits). ``alpha`` and ``beta`` are plain attributes:
    set them between steps to schedule them.

    Reference: Y. Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.

    How public code differs from the paper: clips and floor are those of :class:`ReverseCrossEntropy`. On CIFAR-100 the
    public reproduction (SCELoss-Reproduce) and the code of Dynamics-Aware Loss have beta 1. The former's results need
    an extra L2 penalty of 0.01 on the first fully connected layer, which is no part of this loss.

    Args:
        alpha: Weight of the cross entropy, finite and at least 0. Published: 0.01 (MNIST), 0.1 (CIFAR-10),
            6 (CIFAR-100), 10 (WebVision).
        beta: Weight of the reverse cross entropy, finite and at least 0. Published: 0.1 (CIFAR-100), 1 (elsewhere).
        eps: Floor of the probability in the reverse term, in [0, 1); 0 for none.
        label_floor: Floor of the target inside its logarithm, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> SymmetricCrossEntropy(alpha=0.1, beta=1.0)(torch.zeros(8, 4), torch.arange(8) % 4)  # 0.1386 + 6.9078
        tensor(7.0464)
    """

    soft_targets = True

    def __init__(
        self, alpha: float, beta: float, eps: float = 1e-7, label_floor: float = 1e-4, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        check_argument(0.0 < label_floor < 1.0, "label_floor", "a float in (0, 1)", label_floor)
        self.alpha = alpha
        self.beta = beta
        self.eps = eps
        self.label_floor = label_floor

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return symmetric_cross_entropy(logits, target, self.alpha, self.beta, self.eps, self.label_floor)
