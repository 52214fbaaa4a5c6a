"""The figures that training dynamics keep of finished epochs."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.dynamics import DynamicsTable
from lightning_noisy.state.row_memory import full, placed

_STEPS, _NOT_SEEN = 254, 255


class DynamicsRows:
    """The figures of finished epochs, a part of a section; inside a batch nothing changes.

    Args:
        folder: Where files have them in place of the memory.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.table: DynamicsTable | None = None
        """None before the first epoch has ended."""
        self.num_classes: int | None = None
        """K."""
        self.curves: list[Tensor] = []
        """Confidence of each epoch in 254ths, uint8 (N,); 255 where a sample was not seen."""

    def add(self, epoch: int, visits: Tensor) -> DynamicsTable:
        """Add an epoch.

        Args:
            epoch: Its number, from 0.
            visits: Log-probabilities and label of each sample, (N, K + 1); NaN where it was not seen.

        Raises:
            NoisyLabelError: The epochs before had other classes.
        """
        self.num_classes = visits.shape[1] - 1
        if self.table is None:
            self.table = DynamicsTable(len(visits), self.num_classes, partial(full, folder=self.folder))
        known = self.table.rows["votes"].shape[1]
        if known != self.num_classes:
            raise NoisyLabelError(f"The checkpoint's training dynamics know {known} classes, not {self.num_classes}.")
        self.table.to(visits.device)
        likely, label = visits[:, :-1], visits[:, -1].nan_to_num(0).long()
        self.table.add(epoch, likely, label)
        confidence = likely.gather(1, label.unsqueeze(1)).squeeze(1).exp()
        curve = (confidence.nan_to_num(_NOT_SEEN / _STEPS) * _STEPS).round().to(torch.uint8).cpu()
        self.curves.append(self._kept(curve))
        return self.table

    def confidence(self) -> Tensor:
        """Confidence of each sample by epoch, in steps of 1/254, float32 (N, E); NaN where it was not seen."""
        steps = torch.stack(self.curves, dim=1)
        return (steps.float() / _STEPS).masked_fill(steps == _NOT_SEEN, float("nan"))

    def enter_batch(self) -> None:
        """Nothing: rows change between epochs."""

    def end_batch(self) -> None:
        """Nothing."""

    def leave_batch(self) -> None:
        """Nothing."""

    def reset(self) -> None:
        """Begin without a past."""
        self.table, self.num_classes, self.curves = None, None, []

    def state_dict(self) -> dict[str, Any]:
        """All as tensors and numbers."""
        table = {} if self.table is None else self.table.state_dict()
        return {"table": table, "classes": self.num_classes, "curves": list(self.curves)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved."""
        table = {name: self._kept(column) for name, column in state["table"].items()}
        self.table = DynamicsTable.restored(table) if table else None
        self.num_classes = state["classes"]
        self.curves = [self._kept(curve) for curve in state["curves"]]

    def _kept(self, column: Tensor) -> Tensor:
        return column if self.folder is None else placed(column, self.folder)
