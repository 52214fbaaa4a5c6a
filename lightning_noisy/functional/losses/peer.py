"""Peer loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label, log_of_floor, log_softmax
from lightning_noisy.functional.random import hash_bits


def peer_loss(logits: Tensor, target: Tensor, peer_target: Tensor, alpha: float, eps: float = 1e-5) -> Tensor:
    r"""Cross entropy with the label, minus that with the label of another sample.

    .. math:: -\log(p_y + \epsilon) + \alpha \log(p_{\tilde y} + \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        peer_target: Labels of other samples, int64 (B,).
        alpha: Weight of the second term.
        eps: Added to the probabilities; 0 gives plain cross entropies.

    Returns:
        Losses (B,), float32 or float64; some may be negative.
    """
    log_probability = log_softmax(logits)
    log_probability = torch.logaddexp(log_probability, log_probability.new_full((), log_of_floor(eps)))
    return alpha * at_label(log_probability, peer_target) - at_label(log_probability, target)


def shuffled_labels(target: Tensor, index: Tensor, *keys: Tensor | int) -> Tensor:
    """The labels of a batch in another order: each sample gets that of the next one in a ring of random order.

    Args:
        target: int64 labels (B,).
        index: int64 (B,), what tells the samples apart: the ring does not depend on their order in the batch.
        *keys: Integers that the ring is a function of, beside ``index``.

    Returns:
        int64 labels (B,): each sample gives its label to one sample, never itself unless it is alone.
    """
    ring = hash_bits(*keys, index).argsort(stable=True)
    return target.scatter(0, ring, target[ring.roll(-1)])
