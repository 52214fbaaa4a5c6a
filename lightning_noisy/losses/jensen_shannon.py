"""Jensen-Shannon losses, of one view and of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.losses import generalized_jensen_shannon, log_mean_prediction, view_consistency
from lightning_noisy.losses._composite import CompositeLoss
from lightning_noisy.losses.base import NoisyLabelLoss


class JensenShannonLoss(NoisyLabelLoss):
    r"""Jensen-Shannon loss (JS): between cross entropy, which learns fast, and MAE, which resists noise.

    .. math::
        \mathcal{L} = Z \big(\pi \operatorname{KL}(q \| m) + (1 - \pi) \operatorname{KL}(p \| m)\big), \quad
        m = \pi q + (1 - \pi) p, \quad Z = \frac{-1}{(1 - \pi) \ln(1 - \pi)}, \quad p = \operatorname{softmax}(z)

    with q the one-hot row of a label, or the target distribution; inside each logarithm probabilities are clipped to
    :math:`[\epsilon, 1]`. It falls to cross entropy as :math:`\pi \to 0` and to ``1 - p_y`` as :math:`\pi \to 1`.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets q (B, K); it computes in float32 (float64 for float64 logits). ``pi`` is a plain attribute: set it between
    steps to schedule it. The dynamic JS of Dynamics-Aware Loss rises from 0 to 1, where the loss is 0 / 0, so ``pi`` is
    clamped to [0.001, 0.999] when used: ``ParameterSchedule("loss.pi", start=0.0, end=1.0)``.

    Reference: E. Englesson and H. Azizpour, "Generalized Jensen-Shannon Divergence Loss for Learning with Noisy
    Labels", NeurIPS 2021.

    The official code clips as above at 1e-7, that of Dynamics-Aware Loss (Li et al., 2023) at 1e-6. It has Z on CIFAR,
    and not on WebVision: ``scaled=False``.

    Args:
        pi: Weight of the target, in [0, 1]. Paper: 0.1, 0.7, 0.7, 0.9, 0.9 (CIFAR-10, 0 to 80 % symmetric noise), 0.3
            (asymmetric); 0.1, 0.1, 0.3, 0.5, 0.3 (CIFAR-100), 0.5 (asymmetric); 0.1 (WebVision). Dynamics-Aware Loss:
            0.9 (CIFAR-10), 0.5 (CIFAR-100, ANIMAL-10N), 0.1 (WebVision).
        scaled: Whether to multiply with Z.
        eps: Floor of the probabilities in the logarithms, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> JensenShannonLoss(pi=0.5)(torch.zeros(8, 2), torch.arange(8) % 2)  # (3 log 4 - 3 log 3) / (2 log 2)
        tensor(0.6226)
    """

    soft_targets = True

    def __init__(self, pi: float, scaled: bool = True, eps: float = 1e-7, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= pi <= 1.0, "pi", "a float in [0, 1]", pi)
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.pi = pi
        self.scaled = scaled
        self.eps = eps

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return generalized_jensen_shannon([logits], target, self.pi, self.scaled, self.eps)


class GeneralizedJensenShannonLoss(CompositeLoss):
    r"""Generalized Jensen-Shannon loss (GJS): views of a sample have to agree with its label and with each other.

    .. math::
        \mathcal{L} = Z \sum_j w_j \operatorname{KL}(d_j \| m), \quad m = \sum_j w_j d_j, \quad
        d = (q, p^{(1)}, \dots, p^{(V)}), \quad w = \big(\pi, \tfrac{1 - \pi}{V}, \dots\big), \quad
        Z = \frac{-1}{(1 - \pi) \ln(1 - \pi)}

    with q the one-hot row of a label, or the target distribution; inside each logarithm probabilities are clipped to
    :math:`[\epsilon, 1]`. No view is detached. Up to the clips it is :class:`JensenShannonLoss` of the mean prediction
    plus :math:`Z (1 - \pi)` times the divergence of the views from it. A ``base`` loss takes the place of the former:

    .. math:: \mathcal{L} = \mathcal{L}_{base}(\bar p, q) + Z \frac{1 - \pi}{V} \sum_v
        \operatorname{KL}(p^{(v)} \| \bar p), \qquad \bar p = \frac{1}{V} \sum_v p^{(v)}

    ``forward(logits, target, views=views)`` takes logits (B, K), int64 labels (B,) or floating-point targets q (B, K)
    where the base takes them, the logits of all views, V tensors (B, K), and what the base requires; ``logits`` is that
    of one view and not used. A NoisyLabelModule gives the views of batches whose images are a list. It computes in
    float32 (float64 for float64 logits). ``pi`` is a plain attribute: set it between steps to schedule it; it is
    clamped to [0.001, 0.999] when used.

    Reference: E. Englesson and H. Azizpour, "Generalized Jensen-Shannon Divergence Loss for Learning with Noisy
    Labels", NeurIPS 2021.

    The official code clips as above at 1e-7. It has Z on CIFAR, and not on WebVision: ``scaled=False``. GJS+DAL of
    Dynamics-Aware Loss (Li et al., 2023) has ``base=DynamicsAwareLoss(q=0.0)``, whose ``q`` rises to 1
    (``DALSchedule(q_start=0.0, q_end=1.0, target="loss.base")``); there is no code of it, and that the base sees the
    mean prediction is our reading.

    Args:
        pi: Weight of the target, in [0, 1]. Paper: 0.5, 0.3, 0.9, 0.1, 0.1 (CIFAR-10, 0 to 80 % symmetric noise), 0.3
            (asymmetric); 0.3, 0.3, 0.5, 0.9, 0.1 (CIFAR-100), 0.5 and 0.1 (20 and 40 % asymmetric); 0.1 (WebVision).
        num_views: V, at least 2.
        scaled: Whether to multiply with Z.
        eps: Floor of the probabilities in the logarithms, in (0, 1).
        base: Loss of the mean prediction; None for that of the equation. Its reduction does not matter.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target, another number of views, or
            keywords that nobody requires.

    Example:
        >>> import torch
        >>> loss, views = GeneralizedJensenShannonLoss(pi=0.5), [torch.zeros(8, 2), torch.zeros(8, 2)]
        >>> loss(views[0], torch.arange(8) % 2, views=views)  # that of one view: they agree
        tensor(0.6226)
    """

    def __init__(
        self,
        pi: float,
        num_views: int = 2,
        scaled: bool = True,
        eps: float = 1e-7,
        base: nn.Module | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 <= pi <= 1.0, "pi", "a float in [0, 1]", pi)
        check_count(num_views, "num_views", 2)
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.pi = pi
        self.num_views = num_views
        self.scaled = scaled
        self.eps = eps
        self.base = base
        self.check_parts()

    @override
    def losses(self, logits: Tensor, target: Tensor, views: Sequence[Tensor], **context: Any) -> Tensor:
        if len(views) != self.num_views:
            raise NoisyLabelError(
                f"GeneralizedJensenShannonLoss expects the logits of {self.num_views} views, but got {len(views)}: "
                "give batches whose images are a list of that many views, or pass `views=[...]`."
            )
        if self.base is None:
            return generalized_jensen_shannon(views, target, self.pi, self.scaled, self.eps)
        fit = self.evaluate("base", log_mean_prediction(views), target, {"views": views, **context})
        return fit + view_consistency(views, self.pi, self.scaled, self.eps)
