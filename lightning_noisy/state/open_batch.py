"""The training batch that has begun and not ended."""

from __future__ import annotations


class OpenBatch:
    """What a run, its stores and its sums know together: whether a batch is open, and which.

    What a store or a sum changes while a batch is open can be taken back until it has ended; they look here at each
    change, so that a batch costs them no call.
    """

    def __init__(self) -> None:
        self.now: object | None = None
        """Another object for each batch; None outside."""
        self.repeated = False
        """Whether its training step runs again, for an optimizer that evaluates the loss several times (SAM, LBFGS).

        Stores and sums then stay as the first pass has left them.
        """
        self._stepped: object | None = None

    def enter_step(self) -> None:
        """A training step begins."""
        self.repeated = self.now is not None and self._stepped is self.now
        self._stepped = self.now
