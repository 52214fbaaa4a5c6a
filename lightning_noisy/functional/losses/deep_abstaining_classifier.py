"""Losses with an output for abstention."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_noisy.functional.losses._numerics import log_softmax
from lightning_noisy.functional.losses.cross_entropy import cross_entropy


def abstention_terms(logits: Tensor, target: Tensor, eps: float = 1e-7) -> tuple[Tensor, Tensor]:
    r"""The two terms of an abstaining classifier's loss.

    .. math:: \big(1 - p_a\big) \mathcal{L}_{CE}^{(K)} \qquad\text{and}\qquad -\log(1 - p_a)

    with the probability :math:`p_a` of the last of K + 1 outputs, at most :math:`1 - \epsilon`, and the cross entropy
    of the softmax over the first K.

    Args:
        logits: Floating-point tensor (B, K + 1).
        target: int64 labels (B,) below K.
        eps: Distance of the ceiling of :math:`p_a` from 1.

    Returns:
        Two tensors (B,), float32 or float64.
    """
    log_rest = log_softmax(logits)[:, :-1].logsumexp(dim=1).clamp(min=math.log(eps))
    return log_rest.exp() * cross_entropy(logits[:, :-1], target), -log_rest
