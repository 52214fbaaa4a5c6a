"""Losses of logits and targets, one value per sample: no reduction, no state.

Every function takes logits (B, K) of any floating dtype, computes in float32 (float64 for float64 logits) and returns
losses (B,) of that dtype. Where a paper's code clamps a probability, so do these: the gradient through a clamped
probability is zero. Finite logits of any size give finite gradients, and finite values but for cross entropy, which
overflows where logits differ by more than the dtype holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_probability(logits: Tensor) -> Tensor:
    return _full_precision(logits).log_softmax(dim=1)


def _at_label(values: Tensor, target: Tensor) -> Tensor:
    """The entry of each row (B, K) that the label (B,) names."""
    return values.gather(1, target.unsqueeze(1)).squeeze(1)


def _log_floor(eps: float) -> float:
    """The logarithm of a probability floor; a floor of zero is none."""
    return math.log(eps) if eps > 0.0 else -math.inf


def _power_minus_one(log_base: Tensor, exponent: float) -> Tensor:
    """``base**exponent - 1`` for bases in [0, 1], accurate in value and in gradient.

    ``expm1`` is the accurate one near zero; below, its backward pass adds 1 to a result close to -1 and loses the
    small gradients that ``exp`` keeps.
    """
    log_power = exponent * log_base
    return torch.where(log_power > -1.0, log_power.expm1(), log_power.exp() - 1.0)


def one_hot(target: Tensor, num_classes: int, floor: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """One-hot rows, not renormalised where the other classes get a ``floor``.

    Args:
        target: int64 labels (B,).
        num_classes: K.
        floor: Weight of the classes that are not the label.
        dtype: dtype of the rows.

    Returns:
        Tensor (B, K).
    """
    rows = torch.full((len(target), num_classes), floor, dtype=dtype, device=target.device)
    return rows.scatter_(1, target.unsqueeze(1), 1.0)


def clipped_softmax(logits: Tensor, eps: float) -> Tensor:
    r"""Softmax clipped to :math:`[\epsilon, 1 - \epsilon]`, not renormalised.

    Args:
        logits: Floating-point tensor (B, K).
        eps: The floor, and the distance of the ceiling from 1.

    Returns:
        Tensor (B, K), float32 or float64. Its gradient is zero where it is clipped.
    """
    return _full_precision(logits).softmax(dim=1).clamp(eps, 1.0 - eps)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross entropy of each sample, for labels or for a target distribution.

    .. math:: -\log p_y \qquad\text{or}\qquad -\sum_k t_k \log p_k

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K), which need not sum to one.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = _log_probability(logits)
    if target.is_floating_point():
        return -(target.to(log_probability.dtype) * log_probability).sum(dim=1)
    return -_at_label(log_probability, target)


def generalized_cross_entropy(logits: Tensor, target: Tensor, q: float = 0.7, eps: float = 1e-7) -> Tensor:
    r"""Generalized cross entropy: cross entropy at ``q=0``, mean absolute error ``1 - p_y`` at ``q=1``.

    .. math:: \mathcal{L}_q = \frac{1 - \max(p_y, \epsilon)^q}{q}, \qquad \mathcal{L}_0 = -\log \max(p_y, \epsilon)

    For a target distribution t it is the mean over the label, :math:`\sum_k t_k \mathcal{L}_q(p_k)`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        q: Exponent, at least 0. Small values lose no digits.
        eps: Floor of the probability; 0 for none.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = _log_probability(logits)
    soft = target.is_floating_point()
    weight = target.to(log_probability.dtype) if soft else log_probability.new_ones(())
    if not soft:
        log_probability = log_probability.gather(1, target.unsqueeze(1))
    log_probability = log_probability.clamp(min=_log_floor(eps))
    losses = -log_probability if q == 0.0 else -_power_minus_one(log_probability, q) / q
    return (weight * losses).sum(dim=1)


def soft_bootstrapping(logits: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Soft bootstrapping: the entropy of the prediction, with the gradient through both factors.

    .. math:: \mathcal{L}_{BS} = -\sum_k p_k \log(p_k + \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        eps: Added inside the logarithm; 0 gives the exact entropy.

    Returns:
        Losses (B,), float32 or float64, between :math:`-\log(1 + \epsilon)` and :math:`\log K`.
    """
    log_probability = _log_probability(logits)
    log_eps = log_probability.new_full((), _log_floor(eps))
    return -(log_probability.exp() * torch.logaddexp(log_probability, log_eps)).sum(dim=1)


def dynamics_aware_loss(logits: Tensor, target: Tensor, q: float, lam: float = 0.0, eps: float = 1e-6) -> Tensor:
    r"""Dynamics-aware loss: generalized cross entropy plus weighted soft bootstrapping.

    .. math:: \mathcal{L} = \mathcal{L}_q + \lambda \frac{\mathcal{L}_{BS}}{q \ln K}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets (B, K).
        q: Exponent, at least 0; more than 0 where ``lam`` is.
        lam: Weight of the bootstrapping term, which is not computed at 0.
        eps: Floor of the probability and addend of the bootstrapping term.

    Returns:
        Losses (B,), float32 or float64.
    """
    losses = generalized_cross_entropy(logits, target, q, eps)
    if lam == 0.0:
        return losses
    return losses + lam / (q * math.log(logits.shape[1])) * soft_bootstrapping(logits, eps)


def noise_attention(
    logits: Tensor,
    target: Tensor,
    attention: Tensor,
    lam: float,
    beta: float = 0.0,
    eps: float = 1e-7,
    attention_eps: float = 1e-12,
    target_eps: float = 1e-4,
) -> Tensor:
    r"""Noise attention loss: cross entropy with a mixture of target and prediction.

    .. math::
        \tau = \operatorname{clip}(\sigma(h)), \quad
        u = \max\big(\tau p + (1 - \tau) t,\, \epsilon\big), \quad
        \mathcal{L} = -\sum_k t_k \log u_k - \lambda \log \tau - \beta \sum_k u_k \log \max(t_k, \epsilon_t)

    A sample of low attention :math:`\tau` is explained by its own target, so it teaches the network little; the
    second term is the price. The third is not computed at ``beta=0``.

    Args:
        logits: Floating-point tensor (B, K).
        target: Floating-point targets (B, K), constant.
        attention: Output :math:`h` of the attention branch before the sigmoid, (B,) or (B, 1).
        lam: Weight :math:`\lambda` of the attention penalty.
        beta: Weight :math:`\beta` of the reversed term.
        eps: Floor :math:`\epsilon` of the mixture, more than 0.
        attention_eps: :math:`\tau` and :math:`p` are clipped to [attention_eps, 1 - attention_eps].
        target_eps: Floor :math:`\epsilon_t` of the target inside its logarithm, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    probability = clipped_softmax(logits, attention_eps)
    target, attention = target.to(probability.dtype), attention.to(probability.dtype).reshape(-1, 1)
    log_weight = logsigmoid(attention).clamp(_log_floor(attention_eps), math.log1p(-attention_eps))
    mixture = torch.lerp(target, probability, log_weight.exp()).clamp(eps, 1.0)
    losses = -(target * mixture.log()).sum(dim=1) - lam * log_weight.squeeze(1)
    if beta == 0.0:
        return losses
    return losses - beta * (mixture * target.clamp(min=target_eps).log()).sum(dim=1)


def early_learning_regularization(
    logits: Tensor, target: Tensor, history: Tensor, lam: float, eps: float = 1e-4
) -> Tensor:
    r"""Cross entropy with early-learning regularization.

    .. math::
        \mathcal{L} = -\log p_y + \lambda \log\Big(1 - \sum_k \bar t_k \tilde p_k\Big), \qquad
        \tilde p = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    The regulariser is negative: it pulls the prediction towards its own running average :math:`\bar t`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,) or floating-point targets (B, K) of the cross entropy.
        history: Running averages of the predictions (B, K), no gradient; any floating dtype and device.
        lam: Weight of the regulariser.
        eps: Clip of the prediction in the regulariser, more than 0; it is not renormalised there.

    Returns:
        Losses (B,), float32 or float64.
    """
    probability = clipped_softmax(logits, eps)
    agreement = (history.detach().to(probability) * probability).sum(dim=1)
    return cross_entropy(logits, target) + lam * (1.0 - agreement).log()


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
    return scale * (1.0 - _at_label(_full_precision(logits).softmax(dim=1), target))


def normalized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross entropy divided by its sum over all labels, with the gradient through both.

    .. math:: \frac{\log p_y}{\sum_k \log p_k}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_probability = _log_probability(logits)
    summable = torch.finfo(log_probability.dtype).min / logits.shape[1]  # K of them do not overflow
    log_probability = log_probability.clamp(min=summable)
    return _at_label(log_probability, target) / log_probability.sum(dim=1)


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
    probability = _full_precision(logits).softmax(dim=1).clamp(min=eps)
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


def normalized_negative_cross_entropy(logits: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Normalised negative cross entropy: the complement of the label's share in what is above the floor.

    .. math:: 1 - \frac{r_y}{\sum_k r_k}, \qquad r_k = \log \max(p_k, \epsilon) - \log \epsilon

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        eps: Floor of the probability, more than 0 and at most 1 / (2 K), so that the sum is at least log 2.

    Returns:
        Losses (B,) in [0, 1], float32 or float64.
    """
    log_floor = _log_floor(eps)
    remainder = _log_probability(logits).clamp(min=log_floor) - log_floor
    return 1.0 - _at_label(remainder, target) / remainder.sum(dim=1)


ACTIVE_NEGATIVE: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "ce": (normalized_cross_entropy, normalized_negative_cross_entropy),
}
"""Base loss of :func:`active_negative_loss` -> its normalised form and its normalised negative form."""


def active_negative_loss(logits: Tensor, target: Tensor, alpha: float, beta: float, base: str = "ce") -> Tensor:
    r"""Weighted sum of a normalised loss and its normalised negative loss, without the penalty on the weights.

    .. math:: \alpha \mathcal{L}_{NCE} + \beta \mathcal{L}_{NNCE}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        alpha: Weight of the normalised loss.
        beta: Weight of the normalised negative loss.
        base: A key of :data:`ACTIVE_NEGATIVE`.

    Returns:
        Losses (B,), float32 or float64.
    """
    active, negative = ACTIVE_NEGATIVE[base]
    return alpha * active(logits, target) + beta * negative(logits, target)


def absolute_sum(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of the absolute values of all entries, differentiable: the sign is the gradient, 0 at 0.

    Args:
        tensors: At least one floating-point tensor, all on one device.

    Returns:
        Scalar, float64: a float32 norm on the CPU keeps three digits of a ResNet's weights.
    """
    return torch.stack(torch._foreach_norm(tuple(tensors), 1, dtype=torch.float64)).sum()
