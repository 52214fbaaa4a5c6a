"""In which order an epoch visits samples, as functions of keys."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.random import hash_bits
from lightning_noisy.functional.selection import place_in_class


def shuffled(index: Tensor, *keys: int) -> Tensor:
    """The samples in a random order.

    Args:
        index: Different positions in the training set, int64 (M,).
        *keys: What the order is a function of.
    """
    return index[hash_bits(*keys, index).argsort(stable=True)]


def passes(index: Tensor, count: int, *keys: int) -> Tensor:
    """As many samples as wanted, in passes over all of them, each in an order of its own.

    Args:
        index: Different positions, int64 (M,), M >= 1.
        count: How many samples.
        *keys: What the orders are functions of.

    Returns:
        int64 (count,).
    """
    needed = -(-count // len(index))
    return torch.cat([shuffled(index, *keys, number) for number in range(needed)])[:count]


def labeled_in_batch(unlabeled: int, size: int, share: float) -> int:
    """How many samples of a batch are labeled: about this share, at least one of each kind; all where all are.

    Args:
        unlabeled: Unlabeled samples there are.
        size: Samples of a batch, at least 2.
        share: In (0, 1).
    """
    return min(max(round(share * size), 1), size - 1) if unlabeled else size


def paired_batches(labeled: Tensor, unlabeled: Tensor, own: int, size: int, *keys: int) -> Tensor:
    """Batches of labeled and of unlabeled samples, which pass over the labeled ones once.

    The last batch is filled up with labeled samples of another pass.

    Args:
        labeled: Positions, int64 (L,), L >= 1.
        unlabeled: Other positions, int64 (U,); they are passed over as often as it takes.
        own: Labeled samples of a batch, as :func:`labeled_in_batch` says.
        size: Samples of a batch.
        *keys: What the orders are functions of.

    Returns:
        int64 (S * size,): batch by batch, the labeled ones first.
    """
    steps = -(-len(labeled) // own)
    first = passes(labeled, steps * own, *keys, 0).reshape(steps, own)
    if own == size:
        return first.flatten()
    return torch.cat([first, passes(unlabeled, steps * (size - own), *keys, 1).reshape(steps, -1)], dim=1).flatten()


def first_of_classes(order: Tensor, targets: Tensor, quota: int) -> Tensor:
    """The first samples of each class in an order; a class with fewer gives all it has.

    Args:
        order: All positions in the training set, int64 (N,).
        targets: Labels, int64 (N,).
        quota: How many of each class.

    Returns:
        int64, in the given order.
    """
    return order[place_in_class(targets[order]) < quota]
