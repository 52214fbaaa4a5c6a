"""What was noted of a sample in the last n epochs before this one.

A row has n + 1 slots, one for this epoch beside those that count, so that a second visit in an epoch has the past of
the first. The slot of epoch e is e modulo n + 1; it holds e + 1, 0 where it is empty, and then the values noted in e.
So a sample that was not visited for a while has no entries older than n epochs, whatever its slots still hold.
"""

from __future__ import annotations

import torch
from torch import Tensor


def window_shape(window: int, width: int) -> tuple[int, int]:
    """The shape of a row; it starts at zero.

    Args:
        window: n, the epochs that count.
        width: D, the values noted in an epoch.
    """
    return window + 1, 1 + width


def mean_before(rows: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
    """The mean of what was noted in the last n epochs before one.

    Args:
        rows: Floating-point tensor (B, n + 1, 1 + D).
        epoch: Number of the epoch, from 0. What was noted in it, or later, does not count.

    Returns:
        The means (B, D) over the epochs in which there is an entry, 0 where there is none, and whether there is one,
        bool (B,).
    """
    noted = rows[:, :, 0] - 1
    counts = (noted >= max(0, epoch - (rows.shape[1] - 1))) & (noted < epoch)
    number = counts.sum(dim=1)
    total = torch.where(counts.unsqueeze(2), rows[:, :, 1:], 0.0).sum(dim=1)
    return total / number.clamp(min=1).unsqueeze(1), number > 0


def note(rows: Tensor, values: Tensor, epoch: int) -> Tensor:
    """The rows with the values of an epoch; they take the place of those of an earlier visit in it.

    Args:
        rows: Floating-point tensor (B, n + 1, 1 + D).
        values: Tensor (B, D).
        epoch: Number of the epoch, from 0. float32 rows tell 2^24 epochs apart, float16 rows 2^11.

    Returns:
        New rows.
    """
    noted, slot = rows.clone(), epoch % rows.shape[1]
    noted[:, slot, 0] = epoch + 1
    noted[:, slot, 1:] = values
    return noted
