"""Edge masks of a classifier: which connections from features to classes are kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dropped_edges(num_classes: int, ratio: float) -> int:
    """Number of edges dropped per input feature, floor(ratio * K), for the ratio as it was written.

    Binary floating point puts some products just below the integer they mean (0.29 * 100 = 28.999...); products within
    1e-9 of an integer count as that integer.
    """
    return math.floor(ratio * num_classes + 1e-9)


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
    by_input = scores.t().contiguous()
    order = by_input.argsort(dim=1, descending=drop == "important", stable=True)
    dropped = order[:, : dropped_edges(scores.shape[0], ratio)]
    return torch.ones_like(by_input).scatter_(1, dropped, 0.0).t().contiguous()
