"""Losses whose sum over all labels is constant, which resists symmetric noise, and their sum with cross entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.functional.losses._numerics import at_label
from lightning_noisy.functional.losses.cross_entropy import cross_entropy
from lightning_noisy.functional.losses.probabilities import one_hot, softmax


def mean_absolute_error(logits: Tensor, target: Tensor, scale: float = 1.0) -> Tensor:
    r"""Mean absolute error of the prediction, bounded and linear in the label's probability.

    .. math:: s\,(1 - p_y) = \frac{s}{2} \sum_k |p_k - q_k|, \qquad q = \text{the one-hot row of } y

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        scale: The factor s.

    Returns:
        Losses (B,) in [0, s], float32 or float64.
    """
    return scale * (1.0 - at_label(softmax(logits), target))


def reverse_cross_entropy(logits: Tensor, target: Tensor, eps: float = 1e-7, label_floor: float = 1e-4) -> Tensor:
    r"""Cross entropy with prediction and target exchanged.

    .. math:: -\sum_k \max(p_k, \epsilon) \log \operatorname{clip}(q_k, \epsilon_q, 1)

    For a label it is :math:`-\log(\epsilon_q) \sum_{k \ne y} \max(p_k, \epsilon)`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        eps: Floor of the probability; 0 for none.
        label_floor: Floor of the target inside its logarithm, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    probability = softmax(logits).clamp(min=eps)
    rows = target if target.is_floating_point() else one_hot(target, logits.shape[1])
    log_target = rows.to(probability.dtype).clamp(label_floor, 1.0).log()
    return -(probability * log_target).sum(dim=1)


def symmetric_cross_entropy(
    logits: Tensor, target: Tensor, alpha: float, beta: float, eps: float = 1e-7, label_floor: float = 1e-4
) -> Tensor:
    r"""Weighted sum of cross entropy and reverse cross entropy.

    .. math:: \alpha \mathcal{L}_{CE} + \beta \mathcal{L}_{RCE}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        alpha: Weight of the cross entropy.
        beta: Weight of the reverse cross entropy.
        eps: Floor of the probability in the latter; 0 for none.
        label_floor: Floor of the target inside its logarithm, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    return alpha * cross_entropy(logits, target) + beta * reverse_cross_entropy(logits, target, eps, label_floor)
