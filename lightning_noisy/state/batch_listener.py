"""Who acts inside training batches alone."""

from __future__ import annotations

from typing import Protocol

from lightning_noisy.data.batch import Batch


class BatchListener(Protocol):
    """Acts inside training batches alone."""

    def enter_batch(self, batch: Batch) -> None:
        """A training batch begins."""
        ...

    def end_batch(self) -> None:
        """It has run to its end."""
        ...

    def finish(self) -> None:
        """Training has come to its end. Refuse one that went by without having a part in it."""
        ...

    def leave_batch(self) -> None:
        """It was given up."""
        ...

    def detach(self) -> None:
        """Training is over: leave no trace."""
        ...
