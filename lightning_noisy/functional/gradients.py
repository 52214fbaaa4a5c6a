"""Gradients: which of a whole network learn, and which would memorize."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_noisy.functional.ratios import as_written

_NORMALIZED = 1e-4  # how near the probabilities of a row add up to 1


def critical_entries(num_entries: int, noise_rate: float) -> int:
    """Number of entries that learn, floor((1 - noise_rate) * n), at least 1, for the rate as it was written."""
    return max(1, math.floor((1 - as_written(noise_rate)) * num_entries))


def kth_largest_(values: Tensor, k: int) -> Tensor:
    """The k-th largest of ``values`` (n,), k from 1, as a scalar tensor; NaN counts as largest.

    Exact, and without a host round trip on an accelerator. On the CPU ``values`` lose their order: NumPy selects in
    place, ten times faster than ``torch.kthvalue``.
    """
    place = values.numel() - k
    if values.device.type != "cpu":
        return values.sort().values[place]
    values.numpy().partition(place)
    return values[place].clone()


def hinder_memorization_(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], noise_rate: float, scratch: Tensor
) -> None:
    r"""Shrink the gradients of the entries that learn and remove the others, jointly over all tensors, in place.

    .. math:: g_j \leftarrow (1 - \tau)\, g_j\, [\, |w_j g_j| \ge s \,]

    where s is the :math:`\lfloor (1 - \tau) n \rfloor`-th largest of all n scores :math:`|w_j g_j|`. Entries that tie
    with s are kept. A gradient that is not finite stays so, for whoever looks for it (a gradient scaler).

    Args:
        weights: Tensors of any shapes, n entries in all, detached.
        gradients: Their gradients, of the same shapes.
        noise_rate: Share of wrong labels :math:`\tau`, in [0, 1).
        scratch: Room for n scores, of the type they are computed in: float32, float64 for float64 weights.

    Reference: Xia et al., Robust early-learning: Hindering the memorization of noisy labels, ICLR 2021.
    """
    _score(weights, gradients, scratch)
    threshold = kth_largest_(scratch, critical_entries(scratch.numel(), noise_rate))
    _score(weights, gradients, scratch)  # again, which is cheaper than a second buffer
    factors = scratch.ge_(threshold).mul_(1 - noise_rate)
    for gradient, factor in zip(gradients, _parts(factors, gradients), strict=True):
        gradient.mul_(factor)


def _score(weights: Sequence[Tensor], gradients: Sequence[Tensor], scores: Tensor) -> None:
    for score, weight, gradient in zip(_parts(scores, weights), weights, gradients, strict=True):
        score.copy_(weight).mul_(gradient)
    scores.abs_()


def _parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat tensor in the shapes of others."""
    pieces = torch.split(flat, [tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def before_log_softmax(gradient: Tensor, logits: Tensor) -> Tensor:
    r"""The gradient at logits, also where log-probabilities have come as logits.

    .. math:: g_k - p_k \sum_j g_j

    with :math:`p = \operatorname{softmax}(z)` of the rows whose probabilities :math:`e^{z_k}` add up to 1: those of
    ``F.nll_loss``. Other rows stay, and so does what any function of the probabilities p has for a gradient.

    Args:
        gradient: g, (B, K).
        logits: z, (B, K), detached.
    """
    normalized = logits.logsumexp(dim=1, keepdim=True).abs() < _NORMALIZED
    return torch.where(normalized, gradient - logits.softmax(dim=1) * gradient.sum(dim=1, keepdim=True), gradient)
