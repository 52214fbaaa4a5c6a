"""Bi-tempered logistic loss: a bounded logarithm and a heavy-tailed softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import full_precision, power_minus_one, summable_log_softmax
from lightning_noisy.functional.losses.probabilities import one_hot


def _log_exp(values: Tensor, temperature: float) -> Tensor:
    """Logarithm of the tempered exponential of values of at most 0, for temperatures above 1."""
    return -torch.log1p((1.0 - temperature) * values) / (temperature - 1.0)


def _tempered_log(log_values: Tensor, temperature: float) -> Tensor:
    """Tempered logarithm of exp(log_values), for temperatures of at most 1."""
    if temperature == 1.0:
        return log_values
    return power_minus_one(log_values, 1.0 - temperature) / (1.0 - temperature)


def log_tempered_softmax(logits: Tensor, temperature: float, num_iters: int = 5) -> Tensor:
    r"""Logarithm of the tempered softmax, normalized by fixed-point iterations.

    .. math::
        p = \exp_t(a - \lambda), \quad \exp_t(u) = \max(0, 1 + (1 - t) u)^{1 / (1 - t)}, \quad
        \lambda = \max_k a_k + \frac{Z^{t - 1} - 1}{t - 1}

    From :math:`u = a - \max_k a_k` on, each iteration sets :math:`Z = \sum_k \exp_t(u_k)` and
    :math:`u = Z^{1 - t} (a - \max_k a_k)`; the last Z makes :math:`\lambda`. The gradient is that of all this.

    Args:
        logits: Activations a, floating-point tensor (B, K).
        temperature: t, at least 1; 1 is the softmax, and with more the tails are heavier.
        num_iters: Number of iterations, at least 1. The sum of a row is 1 up to what is left to converge.

    Returns:
        Tensor (B, K), float32 or float64.
    """
    if temperature == 1.0:
        return summable_log_softmax(logits)
    logits = full_precision(logits)
    lowest = torch.finfo(logits.dtype).min / temperature
    start = (logits - logits.amax(dim=1, keepdim=True)).clamp(min=lowest)
    log_sum = _log_exp(start, temperature).logsumexp(dim=1, keepdim=True)
    for _ in range(num_iters):
        log_exp = _log_exp(((1.0 - temperature) * log_sum).exp() * start, temperature)
        log_sum = log_exp.logsumexp(dim=1, keepdim=True)
    return _log_exp(((1.0 - temperature) * log_sum).exp() * start, temperature) - log_sum


def bi_tempered_logistic_loss(
    logits: Tensor, target: Tensor, t1: float, t2: float, num_iters: int = 5, eps: float = 1e-10
) -> Tensor:
    r"""Bi-tempered logistic loss: the tempered Bregman divergence of target and tempered softmax.

    .. math::
        \sum_k q_k \big(\log_{t_1}(q_k + \epsilon) - \log_{t_1} p_k\big)
        - \sum_k \frac{q_k^{2 - t_1} - p_k^{2 - t_1}}{2 - t_1}, \qquad
        \log_t(u) = \frac{u^{1 - t} - 1}{1 - t}

    with p of :func:`log_tempered_softmax` at temperature :math:`t_2`.

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets q (B, K).
        t1: Temperature of the logarithm, at most 1; 1 is the logarithm, and with less the loss is bounded.
        t2: Temperature of the softmax, at least 1.
        num_iters: Number of iterations of its normalizer.
        eps: Added to the target inside its logarithm, more than 0.

    Returns:
        Losses (B,), float32 or float64.
    """
    log_probability = log_tempered_softmax(logits, t2, num_iters)
    rows = target if target.is_floating_point() else one_hot(target, logits.shape[1])
    rows = rows.to(log_probability.dtype)
    fit = rows * (_tempered_log((rows + eps).log(), t1) - _tempered_log(log_probability, t1))
    exponent = 2.0 - t1
    return (fit - (rows**exponent - (exponent * log_probability).exp()) / exponent).sum(dim=1)
