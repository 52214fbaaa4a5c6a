"""Asymmetric losses."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import (
    asymmetric_exponential_loss,
    asymmetric_generalized_cross_entropy,
    asymmetric_unhinged_loss,
)
from lightning_noisy.losses.base import NoisyLabelLoss


class AsymmetricGeneralizedCrossEntropy(NoisyLabelLoss):
    r"""Asymmetric generalized cross entropy (AGCE): robust wherever the true label is the most frequent one.

    .. math::
        \mathcal{L} = \frac{(a + 1)^q - (a + p_y)^q}{q}, \qquad p = \operatorname{softmax}(z)

    At ``a=0`` it would be generalized cross entropy, at ``q=1`` it is ``1 - p_y``. Averaged over noisy labels it is
    least where the most frequent one has probability 1: for any ``a`` where ``q >= 1``, else for a large enough ``a``.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits).

    Reference: X. Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    The official code clips nothing; nor does this class. Published beside :class:`NormalizedCrossEntropy` in
    :class:`ActivePassiveLoss`, with weights (0, 1) on MNIST, (1, 4) on CIFAR-10, (10, 0.1) on CIFAR-100 and (50, 0.1)
    on WebVision. Dynamics-Aware Loss (Li et al., 2023) tunes otherwise: (1, 0.4) with a, q = 6, 1.5 on CIFAR-10,
    (10, 0.1) with 3, 3 on CIFAR-100, and this loss alone with 1e-5, 0.7 on ANIMAL-10N and 1e-5, 0.5 on WebVision.

    Args:
        a: Addend, finite and more than 0. Published: 4 (MNIST), 6 (CIFAR-10), 1.8 (CIFAR-100), 2.5 (WebVision).
        q: Exponent, finite and more than 0. Published: 0.2 (MNIST), 1.5 (CIFAR-10), 3 (CIFAR-100, WebVision).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> AsymmetricGeneralizedCrossEntropy(a=1.0, q=2.0)(torch.zeros(8, 4), torch.arange(8) % 4)  # (4 - 25 / 16) / 2
        tensor(1.2188)
    """

    def __init__(self, a: float, q: float, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < a < math.inf, "a", "a finite float > 0", a)
        check_argument(0.0 < q < math.inf, "q", "a finite float > 0", q)
        self.a = a
        self.q = q

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return asymmetric_generalized_cross_entropy(logits, target, self.a, self.q)


class AsymmetricUnhingedLoss(NoisyLabelLoss):
    r"""Asymmetric unhinged loss (AUL): robust wherever the true label is the most frequent one.

    .. math::
        \mathcal{L} = \frac{(a - p_y)^q - (a - 1)^q}{q}, \qquad p = \operatorname{softmax}(z)

    At ``q=1`` it is ``1 - p_y``. Averaged over noisy labels it is least where the most frequent one has probability 1:
    for any ``a`` where ``q <= 1``, else for a large enough ``a``.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits).

    Reference: X. Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    The official code clips nothing; nor does this class. Published beside :class:`NormalizedCrossEntropy` in
    :class:`ActivePassiveLoss`, with weights (0, 1) on MNIST, (1, 4) on CIFAR-10 and (10, 0.015) on CIFAR-100.

    Args:
        a: Minuend, finite and more than 1. Published: 3 (MNIST), 6.3 (CIFAR-10), 6 (CIFAR-100).
        q: Exponent, finite and more than 0. Published: 0.1 (MNIST), 1.5 (CIFAR-10), 3 (CIFAR-100).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> AsymmetricUnhingedLoss(a=2.0, q=2.0)(torch.zeros(8, 4), torch.arange(8) % 4)  # (49 / 16 - 1) / 2
        tensor(1.0312)
    """

    def __init__(self, a: float, q: float, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(1.0 < a < math.inf, "a", "a finite float > 1", a)
        check_argument(0.0 < q < math.inf, "q", "a finite float > 0", q)
        self.a = a
        self.q = q

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return asymmetric_unhinged_loss(logits, target, self.a, self.q)


class AsymmetricExponentialLoss(NoisyLabelLoss):
    r"""Asymmetric exponential loss (AEL): robust wherever the true label is the most frequent one.

    .. math:: \mathcal{L} = \exp(-p_y / a), \qquad p = \operatorname{softmax}(z)

    Averaged over noisy labels it is least where the most frequent one has probability 1, for a large enough ``a``.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [exp(-1 / a), 1].

    Reference: X. Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", ICML 2021.

    The official code clips nothing; nor does this class. Published beside :class:`NormalizedCrossEntropy` in
    :class:`ActivePassiveLoss`, with weights (0, 1) on MNIST, (1, 4) on CIFAR-10 and (10, 0.1) on CIFAR-100.

    Args:
        a: Divisor, finite and more than 0. Published: 3.5 (MNIST), 5 (CIFAR-10), 1.5 (CIFAR-100).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> AsymmetricExponentialLoss(a=0.5)(torch.zeros(8, 4), torch.arange(8) % 4)  # exp(-1 / 2)
        tensor(0.6065)
    """

    def __init__(self, a: float, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < a < math.inf, "a", "a finite float > 0", a)
        self.a = a

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return asymmetric_exponential_loss(logits, target, self.a)
