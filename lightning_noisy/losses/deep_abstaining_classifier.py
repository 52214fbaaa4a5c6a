"""Deep abstaining classifier."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import abstention_terms, cross_entropy
from lightning_noisy.losses._batch import batch_mean
from lightning_noisy.losses._counting import CountingLoss


class DeepAbstainingClassifier(CountingLoss):
    r"""Deep abstaining classifier (DAC): an output of its own takes the samples that are not worth learning.

    .. math::
        \mathcal{L} = \begin{cases}
        \mathcal{L}_{CE}^{(K + 1)} & e < \text{warmup\_epochs} \\
        (1 - p_a)\, \mathcal{L}_{CE}^{(K)} - \alpha_e \log(1 - p_a) & \text{then}
        \end{cases}
        \qquad p = \operatorname{softmax}(z)

    with the probability :math:`p_a` of the last of K + 1 outputs, the cross entropy :math:`\mathcal{L}_{CE}^{(K + 1)}`
    of all and that of the softmax over the first K, :math:`\mathcal{L}_{CE}^{(K)}`. The price :math:`\alpha_e` of
    abstaining rises linearly with the epoch e, from 0: from :math:`\alpha_0 = \bar m / d` in the first epoch after the
    warm-up to ``alpha_final`` in the last epoch. :math:`\bar m` is the running mean over batches of the mean of
    :math:`(1 - p_a)\, \mathcal{L}_{CE}^{(K)}`, as it stands after the first batch that may abstain.

    ``forward(logits, target, epoch=epoch, total_epochs=total_epochs)`` takes logits (B, K + 1) of any floating dtype,
    int64 labels (B,) below K, no soft targets, the number of the epoch from 0 and the number of epochs. It computes in
    float32 (float64 for float64 logits). A NoisyLabelModule gives the head K + 1 outputs, and evaluates and predicts
    with the first K. Callbacks at the criterion see all of them: to them abstention is a further class. The running
    mean, :math:`\alpha_0` and the number of epochs are buffers, saved with the weights. In evaluation mode the loss is
    :math:`\mathcal{L}_{CE}^{(K + 1)}`.

    The running mean is a statistic of the batch: with several processes it is that of all their samples, a collective
    that all of them enter, with batches of one size. Where an optimizer evaluates the loss several times in a step
    (SAM), the first pass moves it.

    Reference: S. Thulasidasan et al., "Combating Label Noise in Deep Learning Using Abstention", ICML 2019.

    The official code counts epochs from 1 and computes the same, with :math:`p_a` at most 1 - ``eps`` in the second
    case. Its variant that steers to a given rate of abstention is not part of this class.

    Args:
        warmup_epochs: Epochs without abstention. Published: 20 of 200.
        alpha_final: Last price, finite and at least 0. Published: 1.
        divisor: d, more than 0. Published: 64.
        momentum: Weight of the past in the running mean, in [0, 1). Published: 0.95.
        total_epochs: Number of epochs E; None takes the Trainer's ``max_epochs`` at the first step, and keeps it at
            resume.
        eps: Distance of the ceiling of :math:`p_a` from 1, in (0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the epoch or the number of epochs or gets
            another number of outputs or another target.

    Example:
        >>> import torch
        >>> loss = DeepAbstainingClassifier(warmup_epochs=1)
        >>> loss(torch.zeros(8, 5), torch.arange(8) % 4, epoch=0, total_epochs=10)  # log 5
        tensor(1.6094)
    """

    extra_outputs: ClassVar[int] = 1

    mean: Tensor
    """The running mean; NaN before the first batch."""

    alpha_start: Tensor
    """The first price; NaN before it is known."""

    epochs: Tensor
    """The number of epochs that ``forward`` was told first; 0 before."""

    def __init__(
        self,
        warmup_epochs: int = 20,
        alpha_final: float = 1.0,
        divisor: float = 64.0,
        momentum: float = 0.95,
        total_epochs: int | None = None,
        eps: float = 1e-7,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_count(warmup_epochs, "warmup_epochs", 0)
        check_argument(0.0 <= alpha_final < math.inf, "alpha_final", "a finite float >= 0", alpha_final)
        check_argument(0.0 < divisor < math.inf, "divisor", "a finite float > 0", divisor)
        check_argument(0.0 <= momentum < 1.0, "momentum", "a float in [0, 1)", momentum)
        check_count(total_epochs, "total_epochs", optional=True)
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        self.warmup_epochs = warmup_epochs
        self.alpha_final = alpha_final
        self.divisor = divisor
        self.momentum = momentum
        self.total_epochs = total_epochs
        self.eps = eps
        self._num_classes: int | None = None
        self.register_buffer("mean", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("alpha_start", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("epochs", torch.tensor(0))

    def bind(self, num_features: int, num_classes: int) -> None:
        """Learn how many outputs to expect.

        Args:
            num_features: Not used.
            num_classes: K.
        """
        self._num_classes = num_classes

    def alpha(self, epoch: int) -> Tensor:
        """The price of abstaining in an epoch after the warm-up, NaN before it is known; a scalar.

        Args:
            epoch: Number of the epoch, from 0.
        """
        epochs = self.epochs if self.total_epochs is None else torch.full_like(self.epochs, self.total_epochs)
        steps = (epochs - 1 - self.warmup_epochs).clamp(min=1).to(self.alpha_start)
        progress = ((epoch - self.warmup_epochs) / steps).clamp(max=1.0)
        return torch.lerp(self.alpha_start, torch.full_like(self.alpha_start, self.alpha_final), progress)

    def _note(self, losses: Tensor, epoch: int, total_epochs: int | None) -> None:
        """Update what the price depends on."""
        if self.total_epochs is None:
            if total_epochs is None:
                raise self.missing("total_epochs")
            told = torch.full_like(self.epochs, total_epochs)
            self.epochs.copy_(torch.where(self.epochs > 0, self.epochs, told))
        now = batch_mean(losses.detach().to(self.mean))
        self.mean.copy_(torch.where(self.mean.isnan(), now, torch.lerp(now, self.mean, self.momentum)))
        if epoch >= self.warmup_epochs:
            first = self.mean / self.divisor
            self.alpha_start.copy_(torch.where(self.alpha_start.isnan(), first, self.alpha_start))

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": self.warmup_epochs}

    @override
    def losses(self, logits: Tensor, target: Tensor, epoch: int, total_epochs: int | None = None) -> Tensor:
        outputs = logits.shape[1]
        fitting = self._num_classes is None or outputs == self._num_classes + 1
        check_argument(fitting, "logits", f"of {(self._num_classes or 0) + 1} outputs, K + 1", outputs)
        if not self.training:
            return cross_entropy(logits, target)
        weighted, price = abstention_terms(logits, target, self.eps)
        if self.moves:
            self._note(weighted, epoch, total_epochs)
        if epoch < self.warmup_epochs:
            return cross_entropy(logits, target)
        return weighted + self.alpha(epoch).to(price) * price
