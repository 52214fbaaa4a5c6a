"""What was noted of a sample in the last n epochs before this one.

A row has n + 1 slots, one for this epoch beside those that count, so that a second visit in an epoch has the past of
the first. The slot of epoch e is e modulo n + 1; it holds which turn through the slots that was, from 1, and then the
values noted in e. It is 0 where it is empty. So a sample that was not visited for a while has no entries older than n
epochs, whatever its slots still hold. Turns are counted modulo 1024, which float16 tells apart: an entry would have to
be a multiple of 1024 turns old to be taken for one that counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TURNS = 1024


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
    slots = rows.shape[1]
    age = (epoch - 1 - torch.arange(slots, device=rows.device)) % slots + 1
    counts = (rows[:, :, 0] == _turn(epoch - age, slots)) & (age < slots) & (age <= epoch)
    number = counts.sum(dim=1)
    total = torch.where(counts.unsqueeze(2), rows[:, :, 1:], 0.0).sum(dim=1)
    return total / number.clamp(min=1).unsqueeze(1), number > 0


def note(rows: Tensor, values: Tensor, epoch: int) -> Tensor:
    """The rows with the values of an epoch; they take the place of those of an earlier visit in it.

    Args:
        rows: Floating-point tensor (B, n + 1, 1 + D).
        values: Tensor (B, D).
        epoch: Number of the epoch, from 0.

    Returns:
        New rows.
    """
    noted, slot = rows.clone(), epoch % rows.shape[1]
    noted[:, slot, 0] = _turn(epoch, rows.shape[1])
    noted[:, slot, 1:] = values
    return noted


def _turn(epoch: Any, slots: int) -> Any:
    """Which turn through the slots an epoch is in, from 1: of a number, or of a tensor of them."""
    return epoch // slots % _TURNS + 1
