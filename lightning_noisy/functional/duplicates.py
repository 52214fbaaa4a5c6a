"""Values that stand more than once."""

from __future__ import annotations

import torch
from torch import Tensor


def first_occurrence(index: Tensor) -> Tensor:
    """For each entry of ``index`` (B,) the position at which its value stands first, without a host round trip."""
    ordered, order = index.sort(stable=True)
    return order[torch.searchsorted(ordered, index)]
