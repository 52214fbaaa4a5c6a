"""Truncated generalized cross entropy."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.losses import clipped_softmax, truncated_generalized_cross_entropy
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage


class TruncatedGeneralizedCrossEntropy(NoisyLabelLoss):
    r"""Truncated generalized cross entropy: from time to time the samples the network disbelieves are dropped.

    .. math::
        \mathcal{L}_i = v_i \left(\frac{1 - p_{iy}^q}{q} - \frac{1 - k^q}{q}\right), \qquad
        v_i \leftarrow [p_{iy} > k] \text{ in epochs } e \ge \text{warmup\_epochs}, \; (e + 1) \bmod n = 0

    All samples are kept at first (:math:`v_i = 1`). In an epoch of refreshing, v of each sample is set when it is seen,
    counts at once, and stands until the next such epoch. The gradient of a kept sample is that of
    :class:`GeneralizedCrossEntropy` without a floor, that of a dropped one is zero. Values are negative where
    :math:`p_y > k`; the mean is over the whole batch, dropped samples included.

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets. The store ``"dropped"`` holds
    1 - v; it is written in training mode only. In an epoch of refreshing each visit of a sample decides anew; of a
    sample that stands twice in a batch the first entry decides for both. Otherwise nothing depends on the rest of the
    batch, so several processes compute what one does.

    Reference: Z. Zhang and M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
    Labels", NeurIPS 2018, section 3.3.

    How the known code (a port, Truncated-Loss) differs: it refreshes v in an extra pass over the training set before
    the epoch, with the best checkpoint in evaluation mode. A loss has neither; this one decides with the probabilities
    of the training pass itself, so those of augmented samples and of the network as it is.

    Args:
        q: Exponent, in (0, 1]. Paper: 0.7.
        k: Threshold of the probability, in [0, 1). Paper: 0.5.
        warmup_epochs: Epochs without refreshing. The port refreshes in epochs e, from 0, with e + 1 >= 40, so 39.
        every_n_epochs: n, epochs between two refreshings. Port: 10.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        storage: How the store keeps its rows, a :class:`~lightning_noisy.Storage`; None in whole float32 rows.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the index, the epoch or the attached store or
            gets another target.

    Example:
        >>> TruncatedGeneralizedCrossEntropy().store_shapes(num_classes=10)
        {'dropped': ()}
    """

    def __init__(
        self,
        q: float = 0.7,
        k: float = 0.5,
        warmup_epochs: int = 39,
        every_n_epochs: int = 10,
        reduction: str = "mean",
        storage: Storage | None = None,
    ) -> None:
        super().__init__(reduction, storage)
        check_argument(0.0 < q <= 1.0, "q", "a float in (0, 1]", q)
        check_argument(0.0 <= k < 1.0, "k", "a float in [0, 1)", k)
        check_count(warmup_epochs, "warmup_epochs", 0)
        check_count(every_n_epochs, "every_n_epochs")
        self.q = q
        self.k = k
        self.warmup_epochs = warmup_epochs
        self.every_n_epochs = every_n_epochs

    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The store of dropped samples.

        Args:
            num_classes: Not used.

        Returns:
            ``{"dropped": ()}``.
        """
        return {"dropped": ()}

    def _dropped(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        """1 for dropped samples (B,), decided anew in training where it is time."""
        due = epoch >= self.warmup_epochs and (epoch + 1) % self.every_n_epochs == 0
        if not (self.training and due):
            return self.recall("dropped").get(index)
        probability = clipped_softmax(logits.detach(), 0.0).gather(1, target.unsqueeze(1)).squeeze(1)
        return self.recall("dropped").update(index, (probability <= self.k).to(probability))

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": -(-(self.warmup_epochs + 1) // self.every_n_epochs) * self.every_n_epochs - 1}

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        kept = 1.0 - self._dropped(logits, target, index, epoch)
        return truncated_generalized_cross_entropy(logits, target, kept, self.q, self.k)
