"""Which samples of a batch are learned from: by their losses, or by what networks say of them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.ratios import as_written

_SUREST = 0.99


def forget_rate(epoch: float, rate: float, ramp_epochs: int, exponent: float = 1.0) -> float:
    r"""The share of a batch that is left out.

    .. math:: R(e) = r^c \, \frac{e}{T_k - 1} \quad (e < T_k), \qquad R(e) = r \quad (e \ge T_k)

    Args:
        epoch: e, from 0.
        rate: r, the noise rate, in [0, 1).
        ramp_epochs: :math:`T_k`, at least 1. With 1 the first epoch leaves nothing out.
        exponent: c.

    References:
        Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018; the
        ramp is that of its code.
    """
    if epoch >= ramp_epochs:
        return rate
    return float(rate**exponent) * epoch / max(1, ramp_epochs - 1)


def keep_count(forget: float, count: int) -> int:
    r"""How many of a batch's samples are kept, :math:`\max(1, \lfloor (1 - R) B \rfloor)`.

    It is exact: 1 - 0.8 of 10 samples are 2. The official codes compute in floats, which gives 1 there, and may give 0.

    Args:
        forget: R, in [0, 1].
        count: B.
    """
    return max(1, int((1 - as_written(forget)) * count))


def small_loss(losses: Tensor, keep: int) -> Tensor:
    """The samples with the smallest losses; of equal ones those that stand first. NaN is larger than all.

    Args:
        losses: (B,).
        keep: How many, in [0, B]; more means all.

    Returns:
        bool (B,).
    """
    check_argument(keep >= 0, "keep", "an int >= 0", keep)
    chosen = torch.zeros(len(losses), dtype=torch.bool, device=losses.device)
    return chosen.index_fill_(0, losses.detach().argsort(stable=True)[:keep], True)


def small_loss_by_class(losses: Tensor, target: Tensor, keep: Tensor | int, num_classes: int) -> Tensor:
    """The same in each class: its samples with the smallest losses. A class with fewer samples gives all it has.

    Args:
        losses: (B,).
        target: Labels, int64 (B,).
        keep: How many of each class: int64 (K,), or one number for all.
        num_classes: K.

    Returns:
        bool (B,).
    """
    order = losses.detach().argsort(stable=True)
    labels = target[order]
    quota = torch.as_tensor(keep, device=order.device).expand(num_classes)[labels]
    chosen = torch.empty(len(order), dtype=torch.bool, device=order.device)
    return chosen.index_copy_(0, order, place_in_class(labels) < quota)


def place_in_class(labels: Tensor) -> Tensor:
    """The place of each sample among those of its class, from 0, in the order in which they stand.

    Args:
        labels: int64 (N,), at least 0.

    Returns:
        int64 (N,).
    """
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    first = (counts.cumsum(0) - counts)[labels[by_class]]
    return torch.empty_like(labels).index_copy_(0, by_class, torch.arange(len(labels), device=labels.device) - first)


def disagree(first: Tensor, second: Tensor) -> Tensor:
    """Where two networks, or two views, predict different classes: logits (B, K) each to bool (B,)."""
    return first.argmax(dim=1) != second.argmax(dim=1)


def agree(logits: Tensor, target: Tensor) -> Tensor:
    """Where a network predicts the label: logits (B, K) and labels (B,) to bool (B,)."""
    return logits.argmax(dim=1) == target


def two_view_groups(
    weak: Tensor, strong: Tensor, target: Tensor, weak_threshold: Tensor, strong_threshold: Tensor, margin: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""DISC's groups, by what a network says of two views of each sample.

    A label is believed by a view where :math:`p_{i y_i} > \tau_i`. Both believe it: clean; one alone: hard. Of the
    others those are corrected where the mean prediction q is sure of another class:

    .. math:: \max_k q_{ik} > \min\big((\tau^w_i + \tau^s_i)/2 + \sigma,\ 0.99\big)

    Args:
        weak: Probabilities (N, K) of the weak view.
        strong: Of the strong one.
        target: Given labels, int64 (N,).
        weak_threshold: :math:`\tau^w` (N,).
        strong_threshold: :math:`\tau^s` (N,).
        margin: :math:`\sigma`.

    Returns:
        Clean, hard and corrected samples, bool (N,) each; no sample is in two of them.
    """
    at_label = target.unsqueeze(1)
    by_weak = weak.gather(1, at_label).squeeze(1) > weak_threshold
    by_strong = strong.gather(1, at_label).squeeze(1) > strong_threshold
    sure = ((weak_threshold + strong_threshold) / 2 + margin).clamp(max=_SUREST)
    corrected = (((weak + strong) / 2).amax(dim=1) > sure) & ~(by_weak | by_strong)
    return by_weak & by_strong, by_weak ^ by_strong, corrected


def class_thresholds(threshold: Tensor, level: Tensor) -> Tensor:
    r"""A threshold for each class, lower where the network is less sure: :math:`\tau\, l_k / \max_j l_j`.

    Args:
        threshold: :math:`\tau`, a scalar.
        level: l, mean probabilities of the classes (K,).
    """
    return threshold * level / level.max()


def confidence_weights(confidence: Tensor, mean: Tensor, variance: Tensor, deviations: float) -> Tensor:
    r"""Weights that fall like a normal distribution below the mean confidence, and are 1 above it.

    .. math:: w_i = \exp\!\Big( - \frac{\min(c_i - \mu, 0)^2}{2 v / n^2} \Big)

    Args:
        confidence: c (B,).
        mean: :math:`\mu`, (B,) or a scalar.
        variance: v, likewise, at least 0; less than the dtype's epsilon counts as that, so that equal confidences,
            which differ from their mean by rounding alone, have weight 1.
        deviations: n.
    """
    below = (confidence - mean).clamp(max=0.0)
    least = torch.finfo(variance.dtype).eps
    return (-below.square() * deviations**2 / (2 * variance.clamp(min=least))).exp()
