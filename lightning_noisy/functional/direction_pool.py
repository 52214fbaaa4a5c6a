"""Gradient switching: the pool of directions from which the label of a sample is drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_increment(
    given: Tensor,
    predicted: Tensor,
    confidence: Tensor,
    progress: float,
    lam_prediction: Tensor | float,
    lam_random: Tensor | float,
    num_classes: int,
) -> Tensor:
    r"""What the pools of samples gain.

    .. math:: \operatorname{onehot}(\tilde y_i)\, c_i (1 - e/E)
              + \operatorname{onehot}(\hat y_i)\, c_i \lambda_1 e/E + \tfrac{1}{K} \lambda_2 e/E

    Args:
        given: The given labels :math:`\tilde y`, int64 (B,).
        predicted: The predicted ones :math:`\hat y`, int64 (B,).
        confidence: c, float (B,).
        progress: e/E, in [0, 1].
        lam_prediction: :math:`\lambda_1`, one for all or (B,).
        lam_random: :math:`\lambda_2`, likewise.
        num_classes: K.

    Returns:
        (B, K), of the dtype of ``confidence``.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, section 5.1.
    """
    random = torch.as_tensor(lam_random * progress / num_classes).to(confidence)
    gain = random.expand(len(given)).unsqueeze(1).repeat(1, num_classes)
    gain.scatter_add_(1, given.unsqueeze(1), (confidence * (1 - progress)).unsqueeze(1))
    return gain.scatter_add_(1, predicted.unsqueeze(1), (confidence * lam_prediction * progress).unsqueeze(1))
