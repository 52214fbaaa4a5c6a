"""Negative learning (NL), and its selective stage (SelNL)."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.epoch_window import window_shape
from lightning_noisy.functional.losses import draw_negatives, negative_learning
from lightning_noisy.losses._class_constant import class_weights_constant
from lightning_noisy.losses._label_probability import LABEL_PROBABILITY, label_probability_before, weights_of
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage
from lightning_noisy.trainer_access import run_seed

_STREAM = 0x6E656761746976  # keeps these draws apart from other draws under the same seed


class NegativeLearning(NoisyLabelLoss):
    r"""Negative learning (NL): tells the network classes that a sample is not of, which are seldom wrong.

    .. math::
        \mathcal{L} = -w_y \sum_{j=1}^{n} \log \operatorname{clip}(1 - p_{\bar y_j}, \epsilon, 1), \qquad
        \bar y_j \sim \operatorname{Uniform}(\{1, \dots, K\} \setminus \{y\}), \quad p = \operatorname{softmax}(z)

    The draws are independent, with replacement, and a function of (seed, epoch, index): they do not depend on batches,
    processes or a resume. A sample that is seen twice in an epoch meets the same classes.

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets.

    Reference: Y. Kim, J. Yim, J. Yun and J. Kim, "NLNL: Negative Learning for Noisy Labels", ICCV 2019. It goes on with
    :class:`SelectiveNegativeLearning` and :class:`SelectivePositiveLearning`: see :class:`StagedLoss`.

    How public code differs: the official code, and those of Active-Passive Losses and of Dynamics-Aware Loss, add a
    cross entropy in which all labels are ignored: 0 then, NaN in a current PyTorch; it is left out. The latter two
    train with this stage alone.

    Args:
        num_negatives: n, at least 1. Published: 1 (CIFAR-10), 110 (CIFAR-100).
        class_weights: :math:`w_c` of each class c, K finite numbers of at least 0. Published: the size of the largest
            class divided by that of c, counted in the noisy training labels. None weighs all alike.
        window: Epochs of label probabilities to note in the store ``"label_probability"`` for a selective stage that
            follows; 0 notes none.
        seed: Seed of the draws; None takes the run's (``seed_everything``), else 0. It is saved, so a resume keeps it.
        eps: Floor of what a class leaves, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; the sum over the negatives is part of each value.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range (``class_weights`` for K, in ``forward``), or ``forward`` lacks the
            index, the epoch or an attached store or gets another target.

    Example:
        >>> import torch
        >>> loss = NegativeLearning(num_negatives=2)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4, index=torch.arange(8), epoch=0)  # 2 log(4 / 3)
        tensor(0.5754)
    """

    seed: Tensor

    def __init__(
        self,
        num_negatives: int = 1,
        class_weights: list[float] | None = None,
        window: int = 0,
        seed: int | None = None,
        eps: float = 1e-5,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_count(num_negatives, "num_negatives")
        check_count(window, "window", 0)
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.num_negatives = num_negatives
        self.window = window
        self.eps = eps
        self._class_weights = class_weights_constant(class_weights)
        self.register_buffer("seed", torch.tensor(run_seed(seed)))

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of label probabilities, where there is a ``window``.

        Args:
            num_classes: Not used.

        Returns:
            ``{"label_probability": (window + 1, 2)}``, or no store.
        """
        return {LABEL_PROBABILITY: window_shape(self.window, 1)} if self.window > 0 else {}

    def _weights(self, remembered: Tensor, num_classes: int) -> Tensor | None:
        """What selection makes of each sample (B,); None is 1 for all."""
        return None

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        keys = _STREAM, self.seed.to(index.device), epoch, index
        negatives = draw_negatives(target, logits.shape[1], self.num_negatives, *keys)
        losses = negative_learning(logits, negatives, self.eps)
        if self._class_weights is not None:
            losses = self._class_weights.like(logits)[target] * losses
        if self.window > 0:
            remembered = label_probability_before(self, logits, target, index, epoch)
            weights = self._weights(remembered, logits.shape[1])
            losses = losses if weights is None else weights.to(losses) * losses
        return losses


class SelectiveNegativeLearning(NegativeLearning):
    r"""Selective negative learning (SelNL): :class:`NegativeLearning` without the labels the network disbelieves.

    .. math::
        \mathcal{L}_i = \frac{B}{\sum_j s_j} s_i \mathcal{L}_{NL,i}, \qquad
        s_i = \Big[\tfrac{1}{n} \sum_{e' = e - n}^{e - 1} p_{iy}^{(e')} \ge \theta\Big]

    with the label's probabilities in the training passes of the last n epochs before this one, of which those count in
    which the sample was visited. A sample without a past is kept. A batch of which nothing is kept has the loss 0.
    Second visits are those of :class:`SelectivePositiveLearning`.

    The mean over the kept samples is a statistic of the batch: with several processes it is that of all their samples,
    a collective that all of them enter, with batches of one size. For all else see :class:`NegativeLearning`.

    Reference: Y. Kim et al., "NLNL: Negative Learning for Noisy Labels", ICCV 2019.

    The official code computes the same, but epochs without a past count as probability 0 there, and a batch of which
    nothing is kept gives NaN.

    Args:
        num_negatives: Negatives drawn for each sample, at least 1. Published: 1 (CIFAR-10), 110 (CIFAR-100).
        class_weights: Weight of each class, K finite numbers of at least 0, or None.
        threshold: :math:`\theta` in [0, 1); None is 1 / K, as published.
        window: n, at least 1. Published: 10.
        seed: Seed of the draws; None takes the run's (``seed_everything``), else 0. It is saved, so a resume keeps it.
        eps: Floor of what a class leaves, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: As :class:`NegativeLearning` does.

    Example:
        >>> SelectiveNegativeLearning().store_shapes(num_classes=10)
        {'label_probability': (11, 2)}
    """

    def __init__(
        self,
        num_negatives: int = 1,
        class_weights: list[float] | None = None,
        threshold: float | None = None,
        window: int = 10,
        seed: int | None = None,
        eps: float = 1e-5,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        check_count(window, "window")
        super().__init__(num_negatives, class_weights, window, seed, eps, reduction, storage)
        check_argument(threshold is None or 0.0 <= threshold < 1.0, "threshold", "a float in [0, 1) or None", threshold)
        self.threshold = threshold

    def _weights(self, remembered: Tensor, num_classes: int) -> Tensor:
        threshold = 1.0 / num_classes if self.threshold is None else self.threshold
        return weights_of(self, remembered >= threshold, remembered)
