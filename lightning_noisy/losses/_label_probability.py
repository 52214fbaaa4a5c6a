"""What a network has come to believe of the labels, and the samples that are kept for it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.epoch_window import mean_before, note
from lightning_noisy.functional.losses import clipped_softmax
from lightning_noisy.losses.base import NoisyLabelLoss

LABEL_PROBABILITY = "label_probability"
"""The store."""


def label_probability_before(loss: NoisyLabelLoss, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
    """The labels' mean probability (B,) in the epochs before, 1 without a past; in training this one's is noted."""
    store = loss.recall(LABEL_PROBABILITY)
    rows = store.get(index)
    if loss.training:
        probability = clipped_softmax(logits.detach(), 0.0).gather(1, target.unsqueeze(1))
        store.update(index, note(rows, probability, epoch))
    mean, known = mean_before(rows, epoch)
    return torch.where(known, mean.squeeze(1), 1.0)


def weights_of(loss: NoisyLabelLoss, kept: Tensor, like: Tensor) -> Tensor:
    """Weights (B,) whose mean with losses is the mean over the whole batch as weighed by ``kept``; 0 if all are 0."""
    chosen = kept.to(like)
    return chosen / loss.batch_mean(chosen).clamp(min=torch.finfo(chosen.dtype).tiny)
