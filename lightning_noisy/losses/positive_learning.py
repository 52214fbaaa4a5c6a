"""Selective positive learning (SelPL), the last stage of negative learning."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.epoch_window import window_shape
from lightning_noisy.functional.losses import cross_entropy
from lightning_noisy.losses._class_constant import class_weights_constant
from lightning_noisy.losses._label_probability import LABEL_PROBABILITY, label_probability_before, weights_of
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage


class SelectivePositiveLearning(NoisyLabelLoss):
    r"""Selective positive learning (SelPL): cross entropy with the labels the network has come to believe.

    .. math::
        \mathcal{L}_i = -\frac{B}{\sum_j s_j w_{y_j}} s_i w_{y_i} \log p_{iy}, \qquad
        s_i = \Big[\tfrac{1}{n} \sum_{e' = e - n}^{e - 1} p_{iy}^{(e')} \ge \theta\Big]

    with the label's probabilities in the training passes of the last n epochs before this one, of which those count in
    which the sample was visited. A sample without a past is kept. A batch of which nothing is kept has the loss 0.

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets. The probabilities are the
    store ``"label_probability"``, written in training mode only (:mod:`lightning_noisy.functional.epoch_window`). A
    second visit of a sample in an epoch sees the same past as the first, and its probability takes the place of the
    first's. Of a sample that stands twice in a batch the first entry is noted.

    The weighted mean over the kept samples is a statistic of the batch: with several processes it is that of all their
    samples, a collective that all of them enter, with batches of one size.

    Reference: Y. Kim et al., "NLNL: Negative Learning for Noisy Labels", ICCV 2019.

    The paper keeps p above the threshold, the official code also p at it, as here. The code gives NaN for a batch of
    which nothing is kept.

    Args:
        threshold: :math:`\theta` in [0, 1). Published: 0.5.
        window: n, at least 1. Published: 10.
        class_weights: :math:`w_c` of each class c, K finite numbers of at least 0. The official code has those of
            :class:`NegativeLearning`. None weighs all alike.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range (``class_weights`` for K, in ``forward``), or ``forward`` lacks the
            index, the epoch or the attached store or gets another target.

    Example:
        >>> SelectivePositiveLearning().store_shapes(num_classes=10)
        {'label_probability': (11, 2)}
    """

    def __init__(
        self,
        threshold: float = 0.5,
        window: int = 10,
        class_weights: list[float] | None = None,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_argument(0.0 <= threshold < 1.0, "threshold", "a float in [0, 1)", threshold)
        check_count(window, "window")
        self.threshold = threshold
        self.window = window
        self._class_weights = class_weights_constant(class_weights)

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of label probabilities.

        Args:
            num_classes: Not used.

        Returns:
            ``{"label_probability": (window + 1, 2)}``.
        """
        return {LABEL_PROBABILITY: window_shape(self.window, 1)}

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        remembered = label_probability_before(self, logits, target, index, epoch)
        chosen = (remembered >= self.threshold).to(remembered)
        if self._class_weights is not None:
            chosen = self._class_weights.like(logits)[target] * chosen
        losses = cross_entropy(logits, target)
        return weights_of(self, chosen, losses) * losses
