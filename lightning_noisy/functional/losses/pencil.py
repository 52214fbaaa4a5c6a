"""PENCIL: the label as a distribution that is learned."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses._numerics import log_softmax
from lightning_noisy.functional.losses.bootstrapping import soft_bootstrapping
from lightning_noisy.functional.losses.cross_entropy import cross_entropy


def label_divergence(logits: Tensor, label_logits: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of the prediction from a label distribution.

    .. math:: \sum_k p_k \log \frac{p_k}{d_k}, \qquad p = \operatorname{softmax}(z), \quad d = \operatorname{softmax}(l)

    Args:
        logits: Floating-point tensor z (B, K).
        label_logits: Floating-point tensor l (B, K).

    Returns:
        Losses (B,), float32 or float64, differentiable in both arguments.
    """
    log_probability = log_softmax(logits)
    log_label = log_softmax(label_logits.to(log_probability.dtype))
    return (log_probability.exp() * (log_probability - log_label)).sum(dim=1)


def pencil_loss(
    logits: Tensor, target: Tensor, label_logits: Tensor, alpha: float, beta: float, form: str = "code"
) -> Tensor:
    r"""The loss of PENCIL's second stage: divergence from the label distribution, its compatibility, and entropy.

    .. math::
        \frac{1}{C} \operatorname{KL}(p \,\|\, d) + \alpha\, \mathcal{L}_o + \frac{\beta}{C} H(p), \qquad
        d = \operatorname{softmax}(l)

    In the form ``"paper"``, C is 1 and :math:`\mathcal{L}_o = -\log d_y`; in the form ``"code"``, C is K and
    :math:`\mathcal{L}_o = -\log \operatorname{softmax}(d)_y`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        label_logits: Floating-point tensor l (B, K).
        alpha: Weight of the compatibility of label distribution and given label.
        beta: Weight of the entropy of the prediction.
        form: ``"code"`` or ``"paper"``.

    Returns:
        Losses (B,), float32 or float64, differentiable in logits and label logits.
    """
    divergence, entropy = label_divergence(logits, label_logits), soft_bootstrapping(logits, eps=0.0)
    label_logits = label_logits.to(divergence.dtype)
    code = form == "code"
    compatibility = cross_entropy(label_logits.softmax(dim=1) if code else label_logits, target)
    return (divergence + beta * entropy) / (logits.shape[1] if code else 1) + alpha * compatibility
