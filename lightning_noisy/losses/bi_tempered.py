"""Bi-tempered logistic loss."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import bi_tempered_logistic_loss
from lightning_noisy.losses.base import NoisyLabelLoss


class BiTemperedLogisticLoss(NoisyLabelLoss):
    r"""Bi-tempered logistic loss (BTL): a logarithm that is bounded and a softmax whose tails are heavy.

    .. math::
        \mathcal{L} = \sum_k q_k \big(\log_{t_1}(q_k + \epsilon) - \log_{t_1} p_k\big)
        - \sum_k \frac{q_k^{2 - t_1} - p_k^{2 - t_1}}{2 - t_1}, \qquad
        p = \exp_{t_2}\big(z - \lambda(z)\big)

    with :math:`\log_t(u) = (u^{1 - t} - 1) / (1 - t)`, :math:`\exp_t` its inverse, :math:`\lambda` such that p sums to
    one, and q the one-hot row of a label, or the target distribution. The bound :math:`1 / (1 - t_1)` is for outliers,
    the tails are for wrong labels near the boundary. With both temperatures 1 it is cross entropy (less the entropy of
    a target distribution).

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets q (B, K); it computes in float32 (float64 for float64 logits). ``t1`` and ``t2`` are plain attributes: set
    them between steps to schedule them.

    Reference: E. Amid, M. K. Warmuth, R. Anil and T. Koren, "Robust Bi-Tempered Logistic Loss Based on Bregman
    Divergences", NeurIPS 2019.

    Five fixed-point iterations make :math:`\lambda`, as in the public codes, so p sums to one nearly; the value is that
    of theirs. The gradient is that of this value, through the iterations, as in the code of Dynamics-Aware Loss (Li et
    al., 2023), whose ``eps`` is 1e-6. The official code (``eps`` 1e-10) has an analytic gradient instead, that of the
    converged :math:`\lambda`; more iterations bring both together. Its softmax of temperatures below 1 is not part of
    this loss.

    Args:
        t1: Temperature of the logarithm, in [0, 1]. Published by Dynamics-Aware Loss: 0.7.
        t2: Temperature of the softmax, finite and at least 1. Published by Dynamics-Aware Loss: 3 (CIFAR-10), 1.5
            (CIFAR-100).
        num_iters: Iterations of the normalizer, at least 1.
        eps: Added to the target inside its logarithm, in (0, 1); for a label it is added to the value, no more.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> BiTemperedLogisticLoss(t1=0.5, t2=2.0)(torch.zeros(8, 4), torch.arange(8) % 4)  # 1 - 2 / 3 + 1 / 3
        tensor(0.6667)
    """

    soft_targets = True

    def __init__(self, t1: float, t2: float, num_iters: int = 5, eps: float = 1e-10, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= t1 <= 1.0, "t1", "a float in [0, 1]", t1)
        check_argument(1.0 <= t2 < float("inf"), "t2", "a finite float >= 1", t2)
        check_count(num_iters, "num_iters")
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.t1 = t1
        self.t2 = t2
        self.num_iters = num_iters
        self.eps = eps

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return bi_tempered_logistic_loss(logits, target, self.t1, self.t2, self.num_iters, self.eps)
