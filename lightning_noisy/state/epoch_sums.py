"""Means over an epoch that survive a resume."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.processes import communication_device, process_count, process_rank


class EpochSums:
    """Named sums over one epoch that survive a resume and are merged over processes.

    Lightning's own epoch means start again from zero when training resumes in the middle of an epoch. Sums are float64
    on the device of what is added; nothing is read back before :meth:`means`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weight: Tensor | None = None

    def add(self, weight: int, **means: Tensor) -> None:
        """Add the means of one batch.

        Args:
            weight: Number of samples B.
            **means: Batch means, scalar tensors.
        """
        device = next(iter(means.values())).device
        if self._weight is None:
            self._weight = torch.zeros((), dtype=torch.float64, device=device)
        self._weight = self._weight.to(device) + weight
        for name, mean in means.items():
            total = self._sums.get(name, torch.zeros((), dtype=torch.float64)).to(device)
            self._sums[name] = total + mean.detach().double() * weight

    def merge(self) -> None:
        """Add up the sums of all processes on rank 0: a collective. The others start again from zero."""
        if process_count() == 1 or self._weight is None:
            return
        device = communication_device()
        packed = torch.stack([self._weight, *self._sums.values()]).to(device)
        dist.all_reduce(packed)
        if process_rank() != 0:
            packed.zero_()
        self._weight, *sums = packed.unbind()
        self._sums = dict(zip(self._sums, sums, strict=True))

    def means(self) -> dict[str, float]:
        """The means over all processes, equal on each: a collective. Empty when nothing has been added."""
        if self._weight is None:
            return {}
        packed = torch.stack([self._weight, *self._sums.values()])
        if process_count() > 1:
            packed = packed.to(communication_device())
            dist.all_reduce(packed)
        weight, *sums = packed.tolist()
        return {name: total / weight for name, total in zip(self._sums, sums, strict=True)}

    def reset(self) -> None:
        """Forget everything."""
        self._sums, self._weight = {}, None

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain values. Never a collective."""
        return {
            "weight": None if self._weight is None else self._weight.cpu(),
            "sums": {name: total.cpu() for name, total in self._sums.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved sums. They are rank 0's, so the other ranks go on from zero."""
        share = 1.0 if process_rank() == 0 else 0.0
        self._weight = None if state["weight"] is None else state["weight"] * share
        self._sums = {name: total * share for name, total in state["sums"].items()}
