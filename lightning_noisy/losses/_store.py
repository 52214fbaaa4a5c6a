"""What a loss needs of a per-sample store."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Store(Protocol):
    """Rows keyed by dataset index; :class:`lightning_noisy.SampleStore` is one."""

    def get(self, index: Tensor) -> Tensor:
        """The rows of the samples ``index`` (B,)."""
        ...

    def update(self, index: Tensor, values: Tensor) -> Tensor:
        """Write rows and return them; of a sample that stands twice in ``index`` the first row counts."""
        ...

    def lerp(self, index: Tensor, values: Tensor, weight: float) -> Tensor:
        """``row <- row + weight * (value - row)``; returns the new rows."""
        ...
