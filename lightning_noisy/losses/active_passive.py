"""The sum of an active and a passive loss."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.losses._composite import CompositeLoss


class ActivePassiveLoss(CompositeLoss):
    r"""Active-passive loss (APL): the weighted sum of any two losses.

    .. math:: \mathcal{L} = \alpha \mathcal{L}_{active} + \beta \mathcal{L}_{passive}

    The paper joins two robust losses that make up for each other: an active one raises the label's probability, a
    passive one lowers the others'. The sum has no condition on either.

    ``forward(logits, target, **context)`` takes what both losses take: logits (B, K), int64 labels (B,), soft targets
    (B, K) where both take them, and every keyword that one of them requires. A loss may be one of this package, with
    parameters and memory of its own, a pair again, or a torch criterion such as ``nn.CrossEntropyLoss()``. Their stores
    are those of :meth:`store_shapes`, named ``"active.<name>"`` and ``"passive.<name>"``. ``alpha`` and ``beta`` are
    plain attributes: set them between steps to schedule them.

    Reference: X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.

    Published (alpha, beta), with gradients clipped to norm 5: NCE+RCE and NCE+MAE have (1, 10) on MNIST and (1, 1) on
    CIFAR-10; on CIFAR-100 NCE+RCE has (10, 0.1) and NCE+MAE (10, 1); on WebVision NCE+RCE has (50, 0.1). The code of
    Asymmetric Loss Functions and of sparse regularization has (1, 100) on MNIST and (10, 1) on CIFAR-100 for NCE+RCE.

    Args:
        active: The first loss, of any reduction.
        passive: The second loss, of any reduction.
        alpha: Weight of the first, finite and at least 0.
        beta: Weight of the second, finite and at least 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: A weight is out of range, a loss has no losses of samples, or ``forward`` gets a target or
            keywords that the losses do not take.

    Example:
        >>> import torch
        >>> loss = ActivePassiveLoss(NormalizedCrossEntropy(), MeanAbsoluteError(), alpha=10.0, beta=1.0)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4)  # 10 / 4 + 3 / 4
        tensor(3.2500)
    """

    def __init__(
        self, active: nn.Module, passive: nn.Module, alpha: float, beta: float, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        self.active = active
        self.passive = passive
        self.alpha = alpha
        self.beta = beta
        self.check_parts()

    @override
    def losses(self, logits: Tensor, target: Tensor, **context: Any) -> Tensor:
        if "parameters" in context:
            context["parameters"] = tuple(context["parameters"])  # a generator serves one loss only
        active, passive = (self.evaluate(part, logits, target, context) for part in ("active", "passive"))
        return self.alpha * active + self.beta * passive
