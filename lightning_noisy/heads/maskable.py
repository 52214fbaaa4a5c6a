"""What a head needs so that its connections can be masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class MaskableHead(Protocol):
    """A map from features (B, D) to logits (B, K) whose K x D edges can be switched off."""

    edge_mask: Tensor | None
    """Ones and zeros (K, D) in the weight's dtype; None keeps every edge."""

    def edge_scores(self, features: Tensor | None = None, score: str = "std") -> Tensor:
        """Importance of every edge, (K, D)."""
        ...


class EdgeMask(nn.Module):
    """Gives a module an :attr:`edge_mask` that follows its parameters' device and dtype.

    The mask is a plain attribute: a buffer would enter the state dict, and DDP would broadcast rank 0's.
    """

    edge_mask: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.edge_mask is not None:
            self.edge_mask = fn(self.edge_mask)
        return module
