"""Peer loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.collectives import process_rank
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import peer_loss, shuffled_labels
from lightning_noisy.losses._batch import whole_batch
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.trainer_access import run_seed

_STREAM = 0x70656572  # keeps these draws apart from other draws under the same seed


class PeerLoss(NoisyLabelLoss):
    r"""Peer loss: agreement with one's label pays only as far as it exceeds agreement with the label of anybody.

    .. math::
        \mathcal{L}_i = -\log(p_{i y_i} + \epsilon) + \alpha \log(p_{i y_{\pi(i)}} + \epsilon), \qquad
        p = \operatorname{softmax}(z)

    where :math:`\pi(i)` is another sample of the batch: the next one in a ring whose order is a function of (seed,
    epoch, index), so that each label is lent once. The gradient of noise that does not depend on the sample cancels,
    without knowing its rate. Values may be negative.

    ``loss(logits, target, index=index, epoch=epoch)`` takes labels (B,), no soft targets. ``alpha`` is a plain
    attribute: schedule it with ``ParameterSchedule("loss.alpha", ...)``. The peers are drawn from the batch of all
    processes: a collective that all of them enter, with batches of one size.

    Reference: Y. Liu and H. Guo, "Peer Loss Functions: Learning from Noisy Labels without Knowing Noise Rates", ICML
    2020.

    How the official multi-class code differs: it draws two further batches each step, takes the inputs of the first
    (another forward pass) and the labels of the second for the second term; the mean of the terms is the same. It
    raises alpha piecewise linearly, on CIFAR-10 from 0 at epoch 20 to 1 at 40, 2 at 50, 5 at 100, 10 at 200 and 20 at
    300, divides the learning rate by 1 + alpha, and makes a new SGD each epoch, which forgets its momentum.

    Args:
        alpha: Weight of the second term, finite and at least 0. The paper's plain form has 1.
        seed: Seed of the ring; None takes the run's (``seed_everything``), else 0. It is saved, so a resume keeps it.
        eps: Added to the probabilities, in [0, 1). It bounds the values; with 0 the second term has no bound.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks the index or the epoch or gets another
            target.

    Example:
        >>> import torch
        >>> loss = PeerLoss(alpha=0.5)
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4, index=torch.arange(8), epoch=0)  # log(4) / 2
        tensor(0.6931)
    """

    seed: Tensor

    def __init__(self, alpha: float = 1.0, seed: int | None = None, eps: float = 1e-5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= alpha < math.inf, "alpha", "a finite float >= 0", alpha)
        check_argument(0.0 <= eps < 1.0, "eps", "a float in [0, 1)", eps)
        self.alpha = alpha
        self.eps = eps
        self.register_buffer("seed", torch.tensor(run_seed(seed)))

    @override
    def losses(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        pairs, rank = torch.stack([target, index], dim=1), process_rank() if self.training else 0
        labels, indices = (whole_batch(pairs) if self.training else pairs).unbind(dim=1)
        peers = shuffled_labels(labels, indices, _STREAM, self.seed.to(index.device), epoch)
        mine = peers[rank * len(target) :][: len(target)]
        return peer_loss(logits, target, mine, self.alpha, self.eps)
