"""Means over an epoch that survive a resume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_noisy.collectives import process_count, process_rank, sum_over_processes
from lightning_noisy.state.open_batch import OpenBatch


class EpochSums:
    """Named sums over one epoch that survive a resume and are merged over processes.

    Lightning's own epoch means start again from zero when training resumes in the middle of an epoch. Sums are float64
    on the device of what is added; nothing is read back before :meth:`means`. All processes add the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self.open_batch = OpenBatch()
        """That of the run which owns them."""
        self._before: tuple[dict[str, Tensor], dict[str, float]] = {}, {}
        self._added_in: object | None = None

    def add(self, weight: int, **values: Tensor) -> None:
        """Add what one batch gives; nothing while its step runs again.

        Args:
            weight: Number of samples B.
            **values: Batch means, scalar tensors; or values (M,), which count one each.
        """
        if self.open_batch.repeated:
            return
        if self._added_in is not self.open_batch.now:
            self._added_in, self._before = self.open_batch.now, (dict(self._sums), dict(self._weights))
        for name, value in values.items():
            wide = value.detach().double()
            term, count = (wide * weight, weight) if value.ndim == 0 else (wide.sum(), len(value))
            known = self._sums.get(name)
            self._sums[name] = term if known is None else known.to(term.device) + term
            self._weights[name] = self._weights.get(name, 0) + count

    def take_back(self) -> None:
        """The open batch is given up."""
        self._sums, self._weights = self._without_open_batch()
        self._added_in = None

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
        sums, weights = self._without_open_batch()
        return {"sums": {name: total.cpu() for name, total in sums.items()}, "weights": dict(weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved sums. They are rank 0's, so the other ranks go on from zero."""
        share = 1.0 if process_rank() == 0 else 0.0
        self._sums = {name: total * share for name, total in state["sums"].items()}
        self._weights = {name: weight * share for name, weight in state["weights"].items()}

    def _without_open_batch(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        added = self._added_in is not None and self._added_in is self.open_batch.now
        return self._before if added else (self._sums, self._weights)

    def _over_processes(self) -> Tensor:
        """Sums and weights of all processes, (2, names)."""
        sums = torch.stack(list(self._sums.values()))
        return sum_over_processes(torch.stack([sums, sums.new_tensor(list(self._weights.values()))]))
