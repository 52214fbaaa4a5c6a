"""Cross entropy with the network's own prediction as a part of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import log_of_floor, log_softmax
from lightning_noisy.functional.losses.cross_entropy import cross_entropy


def bootstrap_cross_entropy(
    logits: Tensor, target: Tensor, beta: float, mode: str = "soft", detach: bool = False
) -> Tensor:
    r"""Cross entropy with a mixture of target and prediction.

    .. math:: -\sum_k \big(\beta q_k + (1 - \beta) s_k\big) \log p_k, \qquad s = p \;\text{ or }\; e_{\arg\max p}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,), or floating-point targets q (B, K).
        beta: Weight of the target, in [0, 1].
        mode: ``"soft"``: s is the prediction; ``"hard"``: its one-hot maximum.
        detach: Take a soft s as a constant. Else the second term is the entropy of the prediction, with the gradient
            through both factors.

    Returns:
        Losses (B,), float32 or float64.
    """
    if mode == "hard":
        own = cross_entropy(logits, logits.argmax(dim=1))
    elif detach:
        log_probability = log_softmax(logits)
        own = -(log_probability.detach().exp() * log_probability).sum(dim=1)
    else:
        own = soft_bootstrapping(logits, eps=0.0)
    return beta * cross_entropy(logits, target) + (1.0 - beta) * own


def soft_bootstrapping(logits: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Soft bootstrapping: the entropy of the prediction, with the gradient through both factors.

    .. math:: \mathcal{L}_{BS} = -\sum_k p_k \log(p_k + \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        eps: Added inside the logarithm; 0 gives the exact entropy.

    Returns:
        Losses (B,), float32 or float64, between :math:`-\log(1 + \epsilon)` and :math:`\log K`.
    """
    log_probability = log_softmax(logits)
    log_eps = log_probability.new_full((), log_of_floor(eps))
    return -(log_probability.exp() * torch.logaddexp(log_probability, log_eps)).sum(dim=1)
