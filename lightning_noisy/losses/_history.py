"""How probable a network found the labels of its training set in its last epochs."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses import clipped_softmax
from lightning_noisy.losses.base import NoisyLabelLoss

LABEL_PROBABILITY = "label_probability"
"""The table's name; a row has an entry for each of the last epochs, 0 where there has been none."""


def remembered_label_probability(
    loss: NoisyLabelLoss, logits: Tensor, target: Tensor, index: Tensor, epoch: int
) -> Tensor:
    """The labels' mean probability over the last epochs but not this one, which is noted for later in training mode.

    Args:
        loss: The loss with the table.
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        index: Positions of the samples in the training set, int64 (B,).
        epoch: Number of the epoch, from 0.

    Returns:
        Tensor (B,); 1 for samples without a past.
    """
    table = loss.recall(LABEL_PROBABILITY)
    rows = table.get(index)
    if loss.training:
        probability = clipped_softmax(logits.detach(), 0.0).gather(1, target.unsqueeze(1)).to(rows)
        slot = torch.full_like(target, epoch % rows.shape[1]).unsqueeze(1)
        table.update(index, rows.scatter(1, slot, probability.clamp(min=torch.finfo(rows.dtype).tiny)))
    seen = rows > 0
    mean = rows.sum(dim=1) / seen.sum(dim=1)
    return torch.where(seen.any(dim=1), mean, 1.0)
