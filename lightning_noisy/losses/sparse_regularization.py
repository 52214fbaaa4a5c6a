"""Sparse regularization of any loss."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import sparsity_penalty, tempered_logits
from lightning_noisy.losses._composite import CompositeLoss


class SparseRegularization(CompositeLoss):
    r"""Sparse regularization (SR): sharp predictions of normalized logits make any loss robust.

    .. math::
        \mathcal{L} = \mathcal{L}_{base}(\tilde z) + \lambda_e \sum_k \max(p_k, \epsilon)^p, \qquad
        \tilde z = \frac{z}{\tau \lVert z \rVert_2}, \quad p = \operatorname{softmax}(\tilde z), \quad
        \lambda_e = \lambda \rho^{\lfloor e / n \rfloor}

    A loss over permutations of one vector, as one-hot rows are, is robust to symmetric noise; small temperatures and
    the penalty bring predictions close to that. The penalty grows with the epoch e; it is a pure function of it.

    ``forward(logits, target, epoch=epoch)`` takes logits (B, K) of any floating dtype, int64 labels (B,) or
    floating-point targets (B, K) where the base takes them, the number of the epoch from 0, and what the base requires.
    It computes in float32 (float64 for float64 logits). The base may be a loss of this package or a torch criterion,
    such as ``nn.CrossEntropyLoss()``; its stores are those of :meth:`store_shapes`, named ``"base.<name>"``. Logits
    are not normalized in evaluation, where it would not change the order of classes. ``tau``, ``lam`` and ``p`` are
    plain attributes: set them between steps to schedule them.

    Reference: X. Zhou et al., "Learning with Noisy Labels via Sparse Regularization", ICCV 2021.

    As in the official code logits shorter than 1e-12 are divided by that (but without the gradient of 1e12 that this
    has), there is no normalization on MNIST (``normalize=False``), and ``eps`` is 1e-7; in that of Dynamics-Aware Loss
    (Li et al., 2023) it is 1e-6. The first version of the official one has :math:`\lambda` 10 for symmetric noise on
    CIFAR-100 as well, later ones 4.

    Published arguments, with gradients clipped to norm 5: (tau, lam, p, rho, every_n_epochs) is (0.1, 4, 0.1, 2, 5) on
    MNIST, (0.5, 1.2, 0.1, 1.03, 1) on CIFAR-10 and (0.5, 4, 0.01, 1.02, 1) on CIFAR-100, there with lam 10 for
    asymmetric noise, with cross entropy or focal loss (gamma 0.5); generalized cross entropy has (0.5, 3, 0.1, 2, 5) on
    MNIST, and q 0.01, on CIFAR-100 0.001. Dynamics-Aware Loss has cross entropy, rho 1.02 and lam 1.5 on CIFAR-10, 8 on
    CIFAR-100 and ANIMAL-10N, and on WebVision (0.5, 2, 0.01, 1.02, 1).

    Args:
        base: The loss that is regularized, of any reduction.
        tau: Temperature, finite and more than 0.
        lam: Weight of the penalty at the start, finite and at least 0.
        p: Exponent of the penalty, in (0, 1].
        rho: Growth of the weight, finite and more than 0.
        every_n_epochs: Number n of epochs after which it grows, at least 1.
        normalize: Whether to divide the logits by their length.
        eps: Floor of the probability in the penalty, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the epoch or gets a target or keywords that
            the base does not take.

    Example:
        >>> import torch
        >>> loss = SparseRegularization(nn.CrossEntropyLoss(), tau=0.5, lam=3.0, p=0.5, rho=2.0)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4, epoch=1)  # log 4 + 6 * 4 / sqrt 4
        tensor(13.3863)
    """

    def __init__(
        self,
        base: nn.Module,
        tau: float,
        lam: float,
        p: float,
        rho: float,
        every_n_epochs: int = 1,
        normalize: bool = True,
        eps: float = 1e-7,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 < tau < math.inf, "tau", "a finite float > 0", tau)
        check_argument(0.0 <= lam < math.inf, "lam", "a finite float >= 0", lam)
        check_argument(0.0 < p <= 1.0, "p", "a float in (0, 1]", p)
        check_argument(0.0 < rho < math.inf, "rho", "a finite float > 0", rho)
        check_count(every_n_epochs, "every_n_epochs")
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.base = base
        self.tau = tau
        self.lam = lam
        self.p = p
        self.rho = rho
        self.every_n_epochs = every_n_epochs
        self.normalize = normalize
        self.eps = eps
        self.check_parts()

    def weight(self, epoch: int) -> float:
        r"""The weight :math:`\lambda_e` of the penalty in an epoch.

        Args:
            epoch: Number of the epoch, from 0.
        """
        return self.lam * math.pow(self.rho, epoch // self.every_n_epochs)

    @override
    def losses(self, logits: Tensor, target: Tensor, epoch: int, **context: Any) -> Tensor:
        logits = tempered_logits(logits, self.tau, self.normalize)
        fit = self.evaluate("base", logits, target, {"epoch": epoch, **context})
        return fit + self.weight(epoch) * sparsity_penalty(logits, self.p, self.eps)
