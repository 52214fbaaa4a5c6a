"""Active negative losses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses import (
    ACTIVE_NEGATIVE,
    absolute_sum,
    active_negative_loss,
    entropy_regularization,
    normalized_negative_cross_entropy,
    normalized_negative_focal_loss,
    softmax,
)
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

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_floor(self.eps, logits)
        return normalized_negative_cross_entropy(logits, target, self.eps)


class NormalizedNegativeFocalLoss(NoisyLabelLoss):
    r"""Normalized negative focal loss (NNFL): :class:`NormalizedNegativeCrossEntropy` of focal losses.

    .. math::
        \mathcal{L}_{NNFL} = 1 - \frac{A - f_y}{\sum_k (A - f_k)}, \qquad
        f_k = -(1 - \tilde p_k)^\gamma \log \tilde p_k, \quad \tilde p = \operatorname{clip}(p, \epsilon, 1), \quad
        A = -(1 - \epsilon)^\gamma \log \epsilon, \quad p = \operatorname{softmax}(z)

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). Values are in [0, 1]. A sample whose :math:`p_y` is below
    :math:`\epsilon` has the value 1 and no gradient.

    Reference: X. Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.

    The official code takes the factors :math:`(1 - \tilde p_k)^\gamma` as constants to the gradient, and so does this
    class by default; ``detach=False`` has the gradient of the equation.

    Args:
        gamma: Exponent, finite and at least 0. Published: 0.5.
        eps: Floor of the probability, in (0, 1 / (2 K)].
        detach: Whether the factors are constants to the gradient.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range (``eps`` for the number of classes, in ``forward``), or ``forward``
            gets another target.

    Example:
        >>> import torch
        >>> NormalizedNegativeFocalLoss()(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 - 1 / K
        tensor(0.7500)
    """

    def __init__(self, gamma: float = 0.5, eps: float = 1e-7, detach: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= gamma < math.inf, "gamma", "a finite float >= 0", gamma)
        check_argument(0.0 < eps < 0.5, "eps", "a float in (0, 1 / (2 K)]", eps)
        self.gamma = gamma
        self.eps = eps
        self.detach = detach

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        _check_floor(self.eps, logits)
        return normalized_negative_focal_loss(logits, target, self.gamma, self.eps, self.detach)


def _check_floor(eps: float, logits: Tensor) -> None:
    """Refuse a floor that could leave nothing to divide by."""
    largest = 0.5 / logits.shape[1]
    check_argument(eps <= largest, "eps", f"at most 1 / (2 K) = {largest:.3g} for these logits", eps)


class ActiveNegativeLoss(NoisyLabelLoss):
    r"""Active negative loss (ANL): a normalized loss, its negative counterpart and an L1 penalty on the weights.

    .. math::
        \mathcal{L} = \alpha \mathcal{L}_{NCE} + \beta \mathcal{L}_{NNCE} + \delta \sum_w |w|
        + \lambda \Big(\ln K + \sum_k m_k \ln m_k\Big)

    with :class:`NormalizedCrossEntropy`, :class:`NormalizedNegativeCrossEntropy` (base ``"ce"``, ANL-CE) or
    :class:`NormalizedFocalLoss`, :class:`NormalizedNegativeFocalLoss` (base ``"focal"``, ANL-FL), w all entries of all
    parameters, and m the mean prediction of the batch, floored at 1e-7. The last term (ANL-ER) is least where all
    classes are predicted equally often; with ``lam=0`` it is not computed. In training it is that of the whole batch of
    all processes, whose losses together have the gradient of a single process.

    The L1 penalty is against overfitting and replaces weight decay: **give the optimizer** ``weight_decay=0``.

    ``forward(logits, target, parameters=model.parameters())`` takes logits (B, K) of any floating dtype, int64 labels
    (B,), no soft targets, and the tensors to be penalized: in a NoisyLabelModule all parameters of the module, biases,
    batch normalization, frozen ones and those of the loss included. They have to be on one device. Both penalties are
    part of each sample's loss: without reduction they are in every entry, ``"mean"`` has them once and ``"sum"`` B
    times. With ``delta=0`` no parameters are needed or looked at. It computes in float32 (float64 for float64 logits).
    ``alpha``, ``beta``, ``delta`` and ``lam`` are plain attributes: set them between steps to schedule them.

    Reference: X. Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.

    As in the official code the L1 penalty includes biases and batch normalization. That code clips the gradient's norm
    at 5 (``Trainer(gradient_clip_val=5.0)``) and adds the penalty to its test loss as well; evaluation here reports
    cross entropy. With the entropy term it clips each prediction and their mean to [1e-7, 1 - 1e-7], those of NNCE too.

    Args:
        alpha: Weight of the normalized loss, finite and at least 0. Paper: 1 (MNIST), 5 (CIFAR-10), 10 (CIFAR-100),
            20 (WebVision).
        beta: Weight of the normalized negative loss, finite and at least 0. Paper: 5 (CIFAR-10), 1 elsewhere.
        delta: Weight of the penalty, finite and at least 0. Paper: 1e-6 (MNIST), 5e-5 (CIFAR-10), 5e-7 (CIFAR-100),
            5e-6 (WebVision).
        base: The loss that is normalized: ``"ce"``, cross entropy, or ``"focal"``, focal loss with gamma 0.5 and a
            detached factor. Published with the same weights.
        lam: Weight of the entropy term, finite and at least 0. Code, for ``"ce"``: 2 (CIFAR-10), 0.01 (CIFAR-100).
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

    def __init__(
        self,
        alpha: float,
        beta: float,
        delta: float,
        base: str = "ce",
        lam: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        check_argument(0.0 <= delta < math.inf, "delta", "a finite float >= 0", delta)
        check_argument(base in ACTIVE_NEGATIVE, "base", " or ".join(map(repr, ACTIVE_NEGATIVE)), base)
        check_argument(0.0 <= lam < math.inf, "lam", "a finite float >= 0", lam)
        self.alpha = alpha
        self.beta = beta
        self.delta = delta
        self.base = base
        self.lam = lam

    @override
    def losses(self, logits: Tensor, target: Tensor, parameters: Iterable[Tensor] | None = None) -> Tensor:
        losses = active_negative_loss(logits, target, self.alpha, self.beta, self.base)
        if self.delta > 0.0:
            losses = losses + self.delta * self._penalty(parameters)
        if self.lam > 0.0:
            losses = losses + self.lam * self._entropy_term(logits)
        return losses

    def _penalty(self, parameters: Iterable[Tensor] | None) -> Tensor:
        tensors = tuple(parameters or ())
        if not tensors:
            raise NoisyLabelError(
                "ActiveNegativeLoss expects the parameters of the network, but got none: pass "
                "`parameters=model.parameters()`, anew at each call since it can be walked once only, or use the loss "
                "in a NoisyLabelModule."
            )
        return absolute_sum(tensors)

    def _entropy_term(self, logits: Tensor) -> Tensor:
        predictions = softmax(logits)
        return entropy_regularization(self.batch_mean(predictions))
