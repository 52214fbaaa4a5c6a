"""Early-learning regularization."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses.cross_entropy import cross_entropy
from lightning_noisy.functional.losses.probabilities import clipped_softmax


def early_learning_penalty(logits: Tensor, history: Tensor, eps: float = 1e-4) -> Tensor:
    r"""The regularizer of early-learning regularization: the lower, the more the prediction is what it used to be.

    .. math::
        \log\Big(1 - \sum_k \bar t_k \tilde p_k\Big), \qquad \tilde p = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        history: Running averages of the predictions (B, K), no gradient; any floating dtype and device.
        eps: Clip of the prediction, more than 0; it is not renormalized.

    Returns:
        Penalties (B,) of at most 0, float32 or float64.
    """
    probability = clipped_softmax(logits, eps)
    return (1.0 - (history.detach().to(probability) * probability).sum(dim=1)).log()


def early_learning_regularization(
    logits: Tensor, target: Tensor, history: Tensor, lam: float, eps: float = 1e-4
) -> Tensor:
    r"""Cross entropy with early-learning regularization.

    .. math::
        \mathcal{L} = -\log p_y + \lambda \log\Big(1 - \sum_k \bar t_k \tilde p_k\Big), \qquad
        \tilde p = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    The regularizer is negative: it pulls the prediction towards its own running average :math:`\bar t`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,) or floating-point targets (B, K) of the cross entropy.
        history: Running averages of the predictions (B, K), no gradient; any floating dtype and device.
        lam: Weight of the regularizer.
        eps: Clip of the prediction in the regularizer, more than 0; it is not renormalized there.

    Returns:
        Losses (B,), float32 or float64.
    """
    return cross_entropy(logits, target) + lam * early_learning_penalty(logits, history, eps)
