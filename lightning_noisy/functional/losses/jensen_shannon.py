"""Jensen-Shannon losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import summable_log_softmax
from lightning_noisy.functional.losses.probabilities import one_hot, softmax

_CLOSEST = 1e-3
"""Distance that ``pi`` keeps from 0 and 1, where the scaled divergence is 0 / 0; nearer, float32 has no digits left."""


def _divergence(distributions: Sequence[Tensor], weights: Sequence[float], eps: float) -> Tensor:
    """Weighted mean of the Kullback-Leibler divergences of distributions (B, K) from their weighted mean (B, K)."""
    weighted = torch.stack([w * d for w, d in zip(weights, distributions, strict=True)])
    log_ratios = torch.stack(list(distributions)).clamp(min=eps).log() - weighted.sum(dim=0).clamp(eps, 1.0).log()
    return (weighted * log_ratios).sum(dim=(0, 2))


def _inner_and_scale(pi: float, scaled: bool) -> tuple[float, float]:
    """``pi`` away from 0 and 1, and the factor Z, which is 1 where it is not asked for."""
    pi = min(max(pi, _CLOSEST), 1.0 - _CLOSEST)
    return pi, -1.0 / ((1.0 - pi) * math.log1p(-pi)) if scaled else 1.0


def generalized_jensen_shannon(
    views: Sequence[Tensor], target: Tensor, pi: float, scaled: bool = True, eps: float = 1e-7
) -> Tensor:
    r"""Jensen-Shannon divergence of the target and the predictions of V views of each sample.

    .. math::
        Z \sum_j w_j \operatorname{KL}(d_j \,\|\, m), \quad m = \sum_j w_j d_j, \quad
        d = (q, p^{(1)}, \dots, p^{(V)}), \quad w = \big(\pi, \tfrac{1 - \pi}{V}, \dots\big), \quad
        Z = \frac{-1}{(1 - \pi) \ln(1 - \pi)}

    Inside each logarithm :math:`d_j` and m are clipped to :math:`[\epsilon, 1]`. With one view it is the loss JS.

    Args:
        views: Logits of each view, V floating-point tensors (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        pi: Weight of the target in [0, 1], clamped to [0.001, 0.999].
        scaled: Whether to multiply with Z: it becomes cross entropy as pi falls to 0, ``1 - p_y`` as pi rises to 1.
        eps: Floor of the probabilities in the logarithms, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    pi, scale = _inner_and_scale(pi, scaled)
    predictions = [softmax(logits) for logits in views]
    rows = target if target.is_floating_point() else one_hot(target, views[0].shape[1])
    weights = [pi] + [(1.0 - pi) / len(views)] * len(views)
    return scale * _divergence([rows.to(predictions[0].dtype), *predictions], weights, eps)


def view_consistency(views: Sequence[Tensor], pi: float, scaled: bool = True, eps: float = 1e-7) -> Tensor:
    r"""The part of :func:`generalized_jensen_shannon` that is about the views alone.

    .. math:: Z (1 - \pi) \frac{1}{V} \sum_v \operatorname{KL}\Big(p^{(v)} \,\Big\|\, \frac{1}{V} \sum_u p^{(u)}\Big)

    Without the clips, what it leaves is JS of the target and the mean prediction.

    Args:
        views: Logits of each view, V floating-point tensors (B, K).
        pi: Weight of the target in [0, 1], clamped to [0.001, 0.999].
        scaled: Whether to multiply with Z.
        eps: Floor of the probabilities in the logarithms, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    pi, scale = _inner_and_scale(pi, scaled)
    predictions = [softmax(logits) for logits in views]
    return scale * (1.0 - pi) * _divergence(predictions, [1.0 / len(views)] * len(views), eps)


def log_mean_prediction(views: Sequence[Tensor]) -> Tensor:
    """Logits of the mean prediction of V views: its logarithm.

    Args:
        views: Logits of each view, V floating-point tensors (B, K).

    Returns:
        Tensor (B, K), float32 or float64.
    """
    return torch.stack([summable_log_softmax(logits) for logits in views]).logsumexp(dim=0) - math.log(len(views))
