"""Losses divided by their sum over all labels."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import (
    normalized_cross_entropy,
    normalized_focal_loss,
    normalized_generalized_cross_entropy,
)
from lightning_noisy.losses.base import NoisyLabelLoss


class NormalizedCrossEntropy(NoisyLabelLoss):
    r"""Normalized cross entropy (NCE): the label's share of the cross entropy summed over all labels.

    .. math:: \mathcal{L}_{NCE} = \frac{\log p_y}{\sum_k \log p_k}, \qquad p = \operatorname{softmax}(z)

    Its sum over all labels is 1, which makes it robust to symmetric noise; alone it learns too little, since growing
    the denominator lowers it as well. It is an active loss: it raises the label's probability only. Add a passive one,
    :class:`MeanAbsoluteError` or :class:`ReverseCrossEntropy`, in :class:`ActivePassiveLoss`.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [0, 1].

    Reference: X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.

    The official code clamps nothing and lets the gradient through the denominator; so does this class.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: The reduction is another, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> NormalizedCrossEntropy()(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 / K
        tensor(0.2500)
    """

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return normalized_cross_entropy(logits, target)


class NormalizedFocalLoss(NoisyLabelLoss):
    r"""Normalized focal loss (NFL): the label's share of the focal loss summed over all labels.

    .. math::
        \mathcal{L}_{NFL} = \frac{(1 - p_y)^\gamma \log p_y}{\sum_k (1 - p_k)^\gamma \log p_k}, \qquad
        p = \operatorname{softmax}(z)

    Robust to symmetric noise for the reason :class:`NormalizedCrossEntropy` gives, and an active loss like it.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [0, 1].

    Reference: X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.

    The official code takes the factors :math:`(1 - p_k)^\gamma` as constants to the gradient, and so does this class by
    default; ``detach=False`` has the gradient of the equation. Published weights of NFL+RCE are those of NCE+RCE, of
    NFL+MAE those of NCE+MAE (:class:`ActivePassiveLoss`).

    Args:
        gamma: Exponent, finite and at least 0. Published: 0.5.
        detach: Whether the factors are constants to the gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> NormalizedFocalLoss()(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 / K
        tensor(0.2500)
    """

    def __init__(self, gamma: float = 0.5, detach: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= gamma < math.inf, "gamma", "a finite float >= 0", gamma)
        self.gamma = gamma
        self.detach = detach

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return normalized_focal_loss(logits, target, self.gamma, self.detach)


class NormalizedGeneralizedCrossEntropy(NoisyLabelLoss):
    r"""Normalized generalized cross entropy (NGCE): the label's share of that loss summed over all labels.

    .. math::
        \mathcal{L}_{NGCE} = \frac{1 - \tilde p_y^q}{K - \sum_k \tilde p_k^q}, \qquad
        \tilde p = \max(\operatorname{softmax}(z), \epsilon)

    Between :class:`NormalizedCrossEntropy`, its limit at ``q=0``, and ``(1 - p_y) / (K - 1)`` at ``q=1``. An active
    loss for small ``q``.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [0, 1].

    Reference: X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.

    The official code clips at 1e-7 as above; the gradient is zero where it is clipped. Alone its code has this loss ten
    times on MNIST. Published weights of NGCE+RCE and NGCE+MAE are those of NCE+RCE and NCE+MAE
    (:class:`ActivePassiveLoss`).

    Args:
        q: Exponent, finite and more than 0. Published: 0.1 (MNIST, CIFAR-10), 0.7 (CIFAR-100).
        eps: Floor of the probability in [0, 1); 0 for none.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> NormalizedGeneralizedCrossEntropy(q=0.1)(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 / K
        tensor(0.2500)
    """

    def __init__(self, q: float, eps: float = 1e-7, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < q < math.inf, "q", "a finite float > 0", q)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        self.q = q
        self.eps = eps

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return normalized_generalized_cross_entropy(logits, target, self.q, self.eps)
