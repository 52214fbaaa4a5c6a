"""Active and passive losses, and their sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses import mean_absolute_error, normalized_cross_entropy
from lightning_noisy.losses._target import check_target
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

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,).

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: The target is not int64 labels (B,).
        """
        check_target(self, logits, target)
        return self.reduce(normalized_cross_entropy(logits, target))


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

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,).

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: The target is not int64 labels (B,).
        """
        check_target(self, logits, target)
        return self.reduce(mean_absolute_error(logits, target, self.scale))


class ActivePassiveLoss(NoisyLabelLoss):
    r"""Active-passive loss (APL): the weighted sum of any two losses.

    .. math:: \mathcal{L} = \alpha \mathcal{L}_{active} + \beta \mathcal{L}_{passive}

    The paper joins two robust losses that make up for each other: an active one raises the label's probability, a
    passive one lowers the others'. The sum has no condition on either.

    ``forward(logits, target, **context)`` takes what both losses take: logits (B, K), int64 labels (B,), soft targets
    (B, K) where both take them, and every keyword that one of them requires. A loss may be one of this package, with
    parameters and memory of its own, a pair again, or a torch criterion such as ``nn.CrossEntropyLoss()``. Their tables
    are those of :meth:`memory_shapes`, named ``"active.<name>"`` and ``"passive.<name>"``. ``alpha`` and ``beta`` are
    plain attributes: set them between steps to schedule them.

    Reference: X. Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.

    Published (alpha, beta), with gradients clipped to norm 5: NCE+RCE and NCE+MAE have (1, 10) on MNIST and (1, 1) on
    CIFAR-10; on CIFAR-100 NCE+RCE has (10, 0.1) and NCE+MAE (10, 1); on WebVision NCE+RCE has (50, 0.1). The code of
    Asymmetric Loss Functions and of sparse regularization has (1, 100) on MNIST and (10, 1) on CIFAR-100 for NCE+RCE.

    Args:
        active: The first loss. Its reduction has to be that of the pair.
        passive: The second loss. Its reduction has to be that of the pair.
        alpha: Weight of the first, finite and at least 0.
        beta: Weight of the second, finite and at least 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: how both losses reduce.

    Raises:
        NoisyLabelError: A weight is out of range, a loss reduces otherwise, or ``forward`` gets a target or keywords
            that the losses do not take.

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
        for side, loss in self._parts():
            own = getattr(loss, "reduction", None)
            if own != reduction:
                raise NoisyLabelError(
                    f"Expected argument `{side}` to be a loss with reduction={reduction!r}, that of the pair, but got "
                    f"{type(loss).__name__} with reduction={own!r}: give the pair and both losses the same."
                )

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        yield "active", self.active
        yield "passive", self.passive

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The keywords that one of the losses requires, each once."""
        return tuple(dict.fromkeys(name for _, loss in self._parts() for name in getattr(loss, "requires", ())))

    @property
    def soft_targets(self) -> bool:  # type: ignore[override]
        """Whether both losses take soft targets; a torch criterion is taken to."""
        return all(getattr(loss, "soft_targets", True) for _, loss in self._parts())

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make the parts of both losses whose size depends on the network.

        Args:
            num_features: Width D of the network's features.
            num_classes: K.
        """
        for _, loss in self._parts():
            if isinstance(loss, NoisyLabelLoss):
                loss.bind(num_features, num_classes)

    def memory_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The tables of both losses.

        Args:
            num_classes: K.

        Returns:
            Their shapes, the names prefixed with ``"active."`` and ``"passive."``.
        """
        return {
            f"{side}.{name}": shape
            for side, loss in self._parts()
            if isinstance(loss, NoisyLabelLoss)
            for name, shape in loss.memory_shapes(num_classes).items()
        }

    def _hand_down_memory(self) -> None:
        for side, loss in self._parts():
            if isinstance(loss, NoisyLabelLoss):
                prefix = f"{side}."
                loss.memory |= {k.removeprefix(prefix): v for k, v in self.memory.items() if k.startswith(prefix)}

    def forward(self, logits: Tensor, target: Tensor, **context: Any) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,), or floating-point targets (B, K) where both losses take them.
            context: The keywords that the losses require.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: A keyword that neither loss requires, a target of another dtype or shape, or what the
                losses refuse.
        """
        check_argument(set(context) <= set(self.requires), "context", f"keywords out of {self.requires}", [*context])
        check_target(self, logits, target)
        self._hand_down_memory()
        if "parameters" in context:
            context["parameters"] = tuple(context["parameters"])  # a generator serves one loss only
        active, passive = (
            loss(logits, target, **{name: context[name] for name in getattr(loss, "requires", ()) if name in context})
            for _, loss in self._parts()
        )
        losses: Tensor = self.alpha * active + self.beta * passive
        return losses
