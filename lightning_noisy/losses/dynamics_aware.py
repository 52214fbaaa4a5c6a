"""Dynamics-aware loss."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses import dynamics_aware_loss
from lightning_noisy.losses.base import NoisyLabelLoss


class DynamicsAwareLoss(NoisyLabelLoss):
    r"""Dynamics-aware loss (DAL): generalized cross entropy that grows robust, then trusts the network.

    .. math::
        \mathcal{L} = \frac{1 - \max(p_y, \epsilon)^q}{q}
        + \frac{\lambda}{q \ln K} \Big({-\sum_k p_k \log(p_k + \epsilon)}\Big), \qquad p = \operatorname{softmax}(z)

    Networks learn patterns first and noise later, so :math:`q` rises over the epochs, from near cross entropy to past
    MAE; where it exceeds 1 the soft bootstrapping term comes in. The divisor :math:`q \ln K` brings both terms to the
    range :math:`[0, 1/q]`. This class is the loss of one moment: ``q`` and ``lam`` are plain float attributes that a
    schedule sets each epoch. Epoch i = 0, ..., E - 1 of the official schedule has :math:`q = q_s + (q_e - q_s) i / E`,
    :math:`t_0 = (1 - q_s) E / (q_e - q_s)` and :math:`\lambda = \max(0, (i - t_0) / (E - t_0))`, with
    :math:`(q_s, q_e)` = (0.8, 1.5) on CIFAR-10, (0.6, 1.5) on CIFAR-100 and ANIMAL-10N and (0.4, 1.5) on WebVision.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,); it computes in float32
    (float64 for float64 logits). With ``lam=0`` this is GCE, with ``q=0`` as well :math:`-\log \max(p_y, \epsilon)`,
    cross entropy with a floor.

    Soft targets t (B, K) are not in the paper; with them the first term is its mean over the label,
    :math:`\sum_k t_k \mathcal{L}_q(p_k)`, so that self-ensembled targets can meet this loss.

    Reference: X.-C. Li et al., "Dynamics-Aware Loss for Learning with Label Noise", 2023 (arXiv:2303.11562).

    How the official code differs from the paper: bootstrapping is soft there, as here (the gradient flows through both
    factors of the entropy), while the text argues with a hard prediction. It never reaches :math:`(q_e, \lambda_e)`,
    fixes :math:`\lambda_e = 1`, and divides by zero at ``q=0``, for which this class has the limit. Its ``eps`` is
    1e-6 in both terms, ten times that of :class:`GeneralizedCrossEntropy`.

    Args:
        q: Exponent, finite and at least 0; more than 0 where ``lam`` is.
        lam: Weight of the bootstrapping term, finite and at least 0; the term is not computed at 0.
        eps: Floor of :math:`p_y` and addend in the entropy, in [0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, ``q`` is 0 where ``lam`` is not (``q`` and ``lam`` are looked at
            again in ``forward``, once a schedule has set both), or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> loss = DynamicsAwareLoss(q=0.8)
        >>> loss.q, loss.lam = 1.0, 0.5
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4)  # (1 - p_y) + 0.5
        tensor(1.2500)
    """

    soft_targets = True

    def __init__(self, q: float, lam: float = 0.0, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        self.q = q
        self.lam = lam
        self.eps = eps
        self._check_schedule()

    def _check_schedule(self) -> None:
        check_argument(0.0 <= self.q < math.inf, "q", "a finite float >= 0", self.q)
        check_argument(0.0 <= self.lam < math.inf, "lam", "a finite float >= 0", self.lam)
        if self.q == 0.0 and self.lam > 0.0:
            raise NoisyLabelError(
                f"Expected argument `lam` to be 0 while `q` is 0, since bootstrapping is divided by `q`, but got "
                f"{self.lam!r}: raise `q` or keep `lam` at 0."
            )

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        self._check_schedule()
        return dynamics_aware_loss(logits, target, self.q, self.lam, self.eps)
