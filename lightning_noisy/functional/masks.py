"""Edge masks of a classifier: which connections from features to classes are kept."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from lightning_noisy.functional.ratios import as_written

_EXACT = 1 << 24
"""Up to here float32 counts without a gap."""


@lru_cache
def dropped_edges(num_edges: int, ratio: float) -> int:
    """Number of edges dropped of so many, floor(ratio * K), for the ratio as it was written; below 1, never all."""
    return min(math.floor(as_written(ratio) * num_edges), num_edges - 1)


def node_mask(scores: Tensor, ratio: float, drop: str = "unimportant") -> Tensor:
    r"""Drop, for each input feature, the floor(ratio * K) edges with the lowest (or highest) score.

    .. math:: M_{oi} = 0 \iff \operatorname{rank}_o(U_{oi}) < \lfloor pK \rfloor

    Of equal scores the lower output index is dropped first, so exactly :math:`\lfloor pK \rfloor` edges go per input,
    constant columns included.

    Args:
        scores: Edge scores U (K, D).
        ratio: Share p of the edges to drop, in [0, 1).
        drop: ``"unimportant"`` drops low scores, ``"important"`` high ones.

    Returns:
        Mask (K, D) of ones and zeros in the dtype of ``scores``.

    Reference: Dynamic Connection Masking, arXiv 2508.09697, section 3 (masking ratio per input node).
    """
    scores = scores.detach() if scores.requires_grad else scores
    return _keep_highest(-scores if drop == "important" else scores, dropped_edges(scores.shape[0], ratio))


def edge_mask(scores: Tensor, ratio: float, drop: str = "unimportant") -> Tensor:
    r"""Drop the floor(ratio * K * D) edges of the whole head with the lowest (or highest) score.

    An input may lose all of its edges, or none. Of equal scores the lower output index is dropped first, and of those
    the lower input index.

    Args:
        scores: Edge scores U (K, D).
        ratio: Share p of the edges to drop, in [0, 1).
        drop: ``"unimportant"`` drops low scores, ``"important"`` high ones.

    Returns:
        Mask (K, D) of ones and zeros in the dtype of ``scores``.

    Reference: Dynamic Connection Masking, arXiv 2508.09697, the edge-wise ablation.
    """
    return node_mask(scores.reshape(-1, 1), ratio, drop).view_as(scores)


def _keep_highest(scores: Tensor, count: int) -> Tensor:
    """Ones but for the ``count`` lowest scores of each column, ties by row."""
    if count == 0:
        return torch.ones_like(scores)
    if scores.device.type != "cpu" or scores.dtype == torch.bfloat16:
        return _keep_highest_by_order(scores, count)
    # NumPy selects with vector instructions, 5 to 50 times faster than torch on a CPU.
    by_column = scores.t().clone(memory_format=torch.contiguous_format).numpy()
    by_column.partition(count - 1, axis=1)
    threshold = torch.from_numpy(by_column[:, count - 1].copy())
    mask = torch.gt(scores, threshold, out=torch.empty_like(scores))
    kept = len(scores) - count
    wide = torch.float64 if mask.numel() > _EXACT or mask.dtype == torch.float16 else None
    if mask.sum(dtype=wide).item() != kept * scores.shape[1]:  # ties, NaN
        columns = mask.sum(dim=0, dtype=wide) != kept
        mask[:, columns] = _keep_highest_by_order(scores[:, columns], count)
    return mask


def _keep_highest_by_order(scores: Tensor, count: int) -> Tensor:
    order = scores.argsort(dim=0, stable=True)
    return torch.ones_like(scores).scatter_(0, order[:count], 0.0)
