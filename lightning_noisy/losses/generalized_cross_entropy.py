"""Generalized cross entropy."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import generalized_cross_entropy
from lightning_noisy.losses.base import NoisyLabelLoss


class GeneralizedCrossEntropy(NoisyLabelLoss):
    r"""Generalized cross entropy (GCE): between cross entropy, which learns fast, and MAE, which resists noise.

    .. math:: \mathcal{L}_q = \frac{1 - \max(p_y, \epsilon)^q}{q}, \qquad p = \operatorname{softmax}(z)

    The gradient of cross entropy is weighted by :math:`p_y^q`, so samples the network disagrees with count less. At
    ``q=1`` it is ``1 - p_y`` (half the mean absolute error), at ``q=0`` its limit :math:`-\log \max(p_y, \epsilon)`.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,); it computes in float32
    (float64 for float64 logits). ``q`` is a plain attribute: set it between steps to schedule it.

    Soft targets t (B, K) are not in the paper; with them the loss is its mean over the label,
    :math:`\sum_k t_k \mathcal{L}_q(p_k)`, so that self-ensembled targets can meet this loss.

    Reference: Z. Zhang and M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
    Labels", NeurIPS 2018.

    Where public code differs: the code known for the paper (Truncated-Loss, a port) clamps nothing: ``eps=0`` here. It
    also drops samples with :math:`p_y \le k`, whose selection is not part of this loss. The code of Active-Passive
    Losses (Ma et al., ICML 2020) clamps the softmax at 1e-7, that of Dynamics-Aware Loss at 1e-6; the default is the
    former. The floor bounds the value and the gradient is zero below it: such a sample no longer teaches anything.

    Args:
        q: Exponent, finite and at least 0. The paper has q in (0, 1] and uses 0.7; beyond 1 easy samples weigh more
            than they do in MAE.
        eps: Floor of the probability in [0, 1); 0 for none.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> loss = GeneralizedCrossEntropy(q=1.0)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 - p_y
        tensor(0.7500)
    """

    soft_targets = True

    def __init__(self, q: float = 0.7, eps: float = 1e-7, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= q < math.inf, "q", "a finite float >= 0", q)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        self.q = q
        self.eps = eps

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return generalized_cross_entropy(logits, target, self.q, self.eps)
