"""What the open training batch has overwritten."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from lightning_noisy.state.open_batch import OpenBatch


class Undo:
    """Remembers the rows that a store overwrites while a batch is open, until the batch has ended."""

    def __init__(self) -> None:
        self.open_batch = OpenBatch()
        """That of the run which owns the store."""
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] = []
        self._written_in: object | None = None

    def note(self, columns: Iterable[Tensor], rows: Tensor) -> None:
        """These rows of some tensors are about to be overwritten."""
        if self.open_batch.now is None:
            return
        if self._written_in is not self.open_batch.now:
            self._written_in, self._overwritten = self.open_batch.now, []
        self._overwritten += [(column, rows, column.index_select(0, rows)) for column in columns]

    def take_back(self) -> None:
        """The open batch is given up: rows are again what they were."""
        for column, rows, before in reversed(self._changes()):
            column.index_copy_(0, rows, before)
        self._written_in = None

    def before(self, column: Tensor) -> Tensor:
        """A tensor as it was before the open batch; itself where nothing has changed."""
        changes = [(rows, before) for changed, rows, before in self._changes() if changed is column]
        if changes:
            column = column.clone()
        for rows, before in reversed(changes):
            column.index_copy_(0, rows, before)
        return column

    def _changes(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        written = self._written_in is not None and self._written_in is self.open_batch.now
        return self._overwritten if written else []
