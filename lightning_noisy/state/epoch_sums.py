"""Means over an epoch that survive a resume."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_noisy.collectives import process_count, process_rank, sum_over_processes
from lightning_noisy.state.open_batch import OpenBatch

_Sums: TypeAlias = tuple[dict[str, Tensor], dict[str, float], dict[str, Tensor]]


class EpochSums:
    """Named sums and counts over one epoch that survive a resume and are merged over processes.

    Lightning's own epoch means start again from zero when training resumes in the middle of an epoch. Sums are float64
    on the device of what is added; nothing is read back before :meth:`means`. All processes add the same names.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self._counts: dict[str, Tensor] = {}
        self.open_batch = OpenBatch()
        """That of the run which owns them."""
        self._before: _Sums = {}, {}, {}
        self._added_in: object | None = None

    def add(self, weight: int, **values: Tensor) -> None:
        """Add what one batch gives; nothing while its step runs again.

        Args:
            weight: Number of samples B.
            **values: Batch means, scalar tensors; or values (M,), which count one each.
        """
        if not self._adding():
            return
        for name, value in values.items():
            wide = value.detach().double()
            term, count = (wide * weight, weight) if value.ndim == 0 else (wide.sum(), len(value))
            known = self._sums.get(name)
            self._sums[name] = term if known is None else known.to(term.device) + term
            self._weights[name] = self._weights.get(name, 0) + count

    def count(self, classes: int, **labels: Tensor) -> None:
        """Count the labels of one batch by class; nothing while its step runs again.

        Args:
            classes: K.
            **labels: int64 (B,), in [0, K).
        """
        if not self._adding():
            return
        for name, label in labels.items():
            known = self._counts.get(name)
            count = label.new_zeros(classes) if known is None else known.to(label.device)
            self._counts[name] = count.scatter_add(0, label, torch.ones_like(label))

    def take_back(self) -> None:
        """The open batch is given up."""
        self._sums, self._weights, self._counts = self._without_open_batch()
        self._added_in = None

    def merge(self) -> None:
        """Add up the sums of all processes on rank 0: a collective. The others start again from zero."""
        if process_count() == 1:
            return
        mine = 1 if process_rank() == 0 else 0
        self._counts = {name: mine * count for name, count in self.counts().items()}
        if self._sums:
            sums, weights = (self._over_processes() * mine).unbind()
            self._sums = dict(zip(self._sums, sums, strict=True))
            self._weights = dict(zip(self._sums, weights.tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """The means over all processes, equal on each: a collective. Empty when nothing has been added."""
        if not self._sums:
            return {}
        sums, weights = self._over_processes().tolist()
        return {name: total / weight for name, total, weight in zip(self._sums, sums, weights, strict=True)}

    def counts(self) -> dict[str, Tensor]:
        """How often each class was counted over all processes, int64 (K,), equal on each: a collective."""
        return {name: sum_over_processes(count) for name, count in self._counts.items()}

    def reset(self) -> None:
        """Forget everything."""
        self._sums, self._weights, self._counts = {}, {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain values, inside a batch without it. Never a collective."""
        sums, weights, counts = self._without_open_batch()
        saved = {
            name: {key: value.cpu() for key, value in of.items()} for name, of in (("sums", sums), ("counts", counts))
        }
        return {**saved, "weights": dict(weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved sums. They are rank 0's, so the other ranks go on from zero."""
        mine = 1 if process_rank() == 0 else 0
        self._sums = {name: total * mine for name, total in state["sums"].items()}
        self._weights = {name: weight * mine for name, weight in state["weights"].items()}
        self._counts = {name: count * mine for name, count in state["counts"].items()}

    def _adding(self) -> bool:
        """Whether what a batch gives counts; what was there before it is kept."""
        if self.open_batch.repeated:
            return False
        if self._added_in is not self.open_batch.now:
            self._added_in = self.open_batch.now
            self._before = dict(self._sums), dict(self._weights), dict(self._counts)
        return True

    def _without_open_batch(self) -> _Sums:
        added = self._added_in is not None and self._added_in is self.open_batch.now
        return self._before if added else (self._sums, self._weights, self._counts)

    def _over_processes(self) -> Tensor:
        """Sums and weights of all processes, (2, names)."""
        sums = torch.stack(list(self._sums.values()))
        return sum_over_processes(torch.stack([sums, sums.new_tensor(list(self._weights.values()))]))
