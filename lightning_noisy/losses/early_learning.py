"""Early-learning regularization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import clipped_softmax, cross_entropy, early_learning_penalty
from lightning_noisy.losses._composite import CompositeLoss
from lightning_noisy.storage import Storage


class EarlyLearningRegularization(CompositeLoss):
    r"""Early-learning regularization (ELR): cross entropy that holds on to what the network predicted early.

    .. math::
        \tilde p = \operatorname{clip}(\operatorname{softmax}(z), \epsilon, 1 - \epsilon), \quad
        \bar t \leftarrow m \bar t + (1 - m) \tilde p / \textstyle\sum_k \tilde p_k, \quad
        \mathcal{L} = -\log p_y + \lambda \log\Big(1 - \sum_k \bar t_k \tilde p_k\Big)

    The running average :math:`\bar t` of each training sample is updated first, without gradient, and starts at zero.
    The regularizer is negative and grows with the agreement of prediction and average, so its gradient cancels that of
    cross entropy on labels the network did not predict early on.

    ``forward(logits, target, index=index)`` takes logits (B, K) of any floating dtype, int64 labels (B,) or
    floating-point targets (B, K), which enter the cross entropy only, and the samples' positions in the training set,
    int64 (B,). It computes in float32 (float64 for float64 logits). The averages are the store ``"prediction"``, which
    is written in training mode only; in evaluation mode rows are read. Each visit of a sample moves its average, also
    the second in an epoch; of a sample that stands twice in a batch the first entry does, and both have the average
    that it made.

    A ``base`` loss takes the place of cross entropy: one of this package or a torch criterion, with what it requires as
    further keywords and its stores named ``"base.<name>"``. ELR+DAL of Dynamics-Aware Loss (Li et al., 2023) has
    ``base=DynamicsAwareLoss(q=0.0)``, whose ``q`` rises to 1 (``DALSchedule(q_start=0.0, q_end=1.0,
    target="loss.base")``); there is no code of it.

    Reference: S. Liu, J. Niles-Weed, N. Razavian and C. Fernandez-Granda, "Early-Learning Regularization Prevents
    Memorization of Noisy Labels", NeurIPS 2020.

    The official code clips as above with ``eps`` 1e-4, normalizes the clipped prediction for the average only, and has
    zero gradient in the regularizer where it clips; so does this class. The paper's equation has no clip.

    Args:
        lam: Weight of the regularizer, finite and at least 0. Paper: 3 (CIFAR-10, symmetric noise), 1 (asymmetric),
            7 (CIFAR-100).
        momentum: Weight of the past in the running average, in [0, 1). Paper: 0.7 (CIFAR-10, symmetric noise), 0.9
            (asymmetric, and CIFAR-100).
        eps: Clip of the prediction at both ends, in (0, 0.5). Below 1e-7, float32 no longer keeps the regularizer
            finite.
        base: The loss that is regularized; None for cross entropy. Its reduction does not matter.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the index or the attached store or gets
            a target of another dtype or shape, or keywords that nobody requires.

    Example:
        >>> EarlyLearningRegularization(lam=7.0, momentum=0.9).store_shapes(num_classes=100)
        {'prediction': (100,)}
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        lam: float = 3.0,
        momentum: float = 0.7,
        eps: float = 1e-4,
        base: nn.Module | None = None,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_argument(0.0 <= lam < math.inf, "lam", "a finite float >= 0", lam)
        check_argument(0.0 <= momentum < 1.0, "momentum", "a float in [0, 1)", momentum)
        check_argument(0.0 < eps < 0.5, "eps", "a float in (0, 0.5)", eps)
        self.lam = lam
        self.momentum = momentum
        self.eps = eps
        self.base = base
        self.check_parts()

    @override
    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of running averages, and those of the base.

        Args:
            num_classes: K.

        Returns:
            ``{"prediction": (K,)}`` and the base's shapes, their names prefixed with ``"base."``.
        """
        return {"prediction": (num_classes,), **super().store_shapes(num_classes)}

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, **context: Any) -> Tensor:
        if self.base is None:
            fit = cross_entropy(logits, target)
        else:
            fit = self.evaluate("base", logits, target, {"index": index, **context})
        return fit + self.lam * early_learning_penalty(logits, self._history(logits, index), self.eps)

    def _history(self, logits: Tensor, index: Tensor) -> Tensor:
        """The running averages of the samples, updated in training."""
        if not self.training:
            return self.recall("prediction").get(index)
        prediction = clipped_softmax(logits.detach(), self.eps)
        prediction = prediction / prediction.sum(dim=1, keepdim=True)
        return self.recall("prediction").lerp(index, prediction, 1.0 - self.momentum)
