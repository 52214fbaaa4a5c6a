"""Means over an epoch that survive a resume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_noisy.collectives import process_count, process_rank, sum_over_processes


class EpochSums:
    """Named sums over one epoch that survive a resume and are merged over processes.

    Lightning's own epoch means start again from zero when training resumes in the middle of an epoch. Sums are float64
    on the device of what is added; nothing is read back before :meth:`means`. All processes add the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self._before: tuple[dict[str, Tensor], dict[str, float]] | None = None

    def add(self, weight: int, **values: Tensor) -> None:
        """Add what one batch gives.

        Args:
            weight: Number of samples B.
            **values: Batch means, scalar tensors; or values (M,), which count one each.
        """
        for name, value in values.items():
            wide = value.detach().double()
            term, count = (wide * weight, weight) if value.ndim == 0 else (wide.sum(), len(value))
            known = self._sums.get(name)
            self._sums[name] = term if known is None else known.to(term.device) + term
            self._weights[name] = self._weights.get(name, 0) + count

    def enter_batch(self) -> None:
        """A training batch begins: the sums without it are kept until it has ended."""
        self._before = dict(self._sums), dict(self._weights)

    def end_batch(self) -> None:
        """The batch has ended, and counts."""
        self._before = None

    def leave_batch(self) -> None:
        """The batch was given up."""
        if self._before is not None:
            self._sums, self._weights = self._before
        self._before = None

    def merge(self) -> None:
        """Add up the sums of all processes on rank 0: a collective. The others start again from zero."""
        if process_count() == 1 or not self._sums:
            return
        totals = self._over_processes() * (1.0 if process_rank() == 0 else 0.0)
        sums, weights = totals.unbind()
        self._sums = dict(zip(self._sums, sums, strict=True))
        self._weights = dict(zip(self._sums, weights.tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """The means over all processes, equal on each: a collective. Empty when nothing has been added."""
        if not self._sums:
            return {}
        sums, weights = self._over_processes().tolist()
        return {name: total / weight for name, total, weight in zip(self._sums, sums, weights, strict=True)}

    def reset(self) -> None:
        """Forget everything."""
        self._sums, self._weights = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain values, inside a batch without it. Never a collective."""
        sums, weights = self._before or (self._sums, self._weights)
        return {"sums": {name: total.cpu() for name, total in sums.items()}, "weights": dict(weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved sums. They are rank 0's, so the other ranks go on from zero."""
        share = 1.0 if process_rank() == 0 else 0.0
        self._sums = {name: total * share for name, total in state["sums"].items()}
        self._weights = {name: weight * share for name, weight in state["weights"].items()}

    def _over_processes(self) -> Tensor:
        """Sums and weights of all processes, (2, names)."""
        sums = torch.stack(list(self._sums.values()))
        return sum_over_processes(torch.stack([sums, sums.new_tensor(list(self._weights.values()))]))
