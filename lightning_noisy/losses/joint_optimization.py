"""Joint optimization of network and labels."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import (
    clipped_softmax,
    cross_entropy,
    divergence_from_uniform,
    soft_bootstrapping,
)
from lightning_noisy.losses.base import NoisyLabelLoss


class JointOptimization(NoisyLabelLoss):
    r"""Loss of joint optimization: cross entropy, a prior on the classes, and entropy.

    .. math::
        \mathcal{L} = -\frac{1}{B} \sum_i \sum_k t_{ik} \log p_{ik}
        + \alpha \sum_k \frac{1}{K} \log \frac{1 / K}{\bar p_k}
        - \frac{\beta}{B} \sum_i \sum_k p_{ik} \log p_{ik}, \qquad \bar p = \frac{1}{B} \sum_i p_i

    The prior keeps the network from putting all samples into one class, the entropy makes its predictions certain
    enough to become labels. The callback :class:`lightning_noisy.callbacks.JointOptimizationLabels` changes the labels.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets t (B, K); it computes in float32 (float64 for float64 logits). The second term is one value for the batch:
    it is part of each sample's loss. With several processes it is that of all their samples, a collective that all of
    them enter, with batches of one size. ``alpha`` and ``beta`` are plain attributes: set them between steps to
    schedule them.

    Reference: D. Tanaka, D. Ikami, T. Yamasaki and K. Aizawa, "Joint Optimization Framework for Learning with Noisy
    Labels", CVPR 2018.

    The second term of the public code (Chainer) lacks the constant, so that its values are higher by
    :math:`\alpha \ln K`.

    Args:
        alpha: Weight of the prior, finite and at least 0. Public code: 1; the paper's varies.
        beta: Weight of the entropy, finite and at least 0. Public code: 0.5.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> JointOptimization()(torch.zeros(8, 4), torch.arange(8) % 4)  # log(4) + 0 + log(4) / 2
        tensor(2.0794)
    """

    soft_targets = True

    def __init__(self, alpha: float = 1.0, beta: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        self.alpha = alpha
        self.beta = beta

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        prior = divergence_from_uniform(self.batch_mean(clipped_softmax(logits, 0.0)))
        own = cross_entropy(logits, target) + self.beta * soft_bootstrapping(logits, eps=0.0)
        return own + self.alpha * prior
