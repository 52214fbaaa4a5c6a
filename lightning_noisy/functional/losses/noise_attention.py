"""Noise attention loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_noisy.functional.losses._numerics import full_precision, log_of_floor
from lightning_noisy.functional.losses.probabilities import clipped_softmax


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
    log_weight = logsigmoid(attention).clamp(log_of_floor(attention_eps), math.log1p(-attention_eps))
    mixture = torch.lerp(target, probability, log_weight.exp()).clamp(eps, 1.0)
    losses = -(target * mixture.log()).sum(dim=1) - lam * log_weight.squeeze(1)
    if beta == 0.0:
        return losses
    return losses - beta * (mixture * target.clamp(min=target_eps).log()).sum(dim=1)


def confidence_logits(logits: Tensor) -> Tensor:
    r"""The number whose sigmoid is the largest probability of each row.

    .. math:: \max_k z_k - \log \sum_{k \ne k^*} e^{z_k}, \qquad k^* = \arg\max_k z_k

    Args:
        logits: Floating-point tensor (B, K), K at least 2.

    Returns:
        Tensor (B,), float32 or float64.
    """
    values = full_precision(logits)
    best = values.argmax(dim=1, keepdim=True)
    others = values.scatter(1, best, -math.inf).logsumexp(dim=1)
    return values.gather(1, best).squeeze(1) - others
