"""Information between labels and predictions, as a determinant."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.losses._numerics import full_precision
from lightning_noisy.functional.losses.probabilities import one_hot


def joint_distribution(logits: Tensor, target: Tensor) -> Tensor:
    r"""Joint distribution of label and prediction in a batch.

    .. math:: U_{jk} = \frac{1}{B} \sum_i [y_i = j]\, p_{ik}

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).

    Returns:
        Matrix (K, K) with sum 1, float32 or float64.
    """
    probability = full_precision(logits).softmax(dim=1)
    rows = one_hot(target, logits.shape[1], dtype=probability.dtype)
    return rows.t() @ probability / len(target)


def determinant_mutual_information(joint: Tensor, eps: float = 1e-3) -> Tensor:
    r"""Negative logarithm of the determinant-based mutual information.

    .. math:: -\log(|\det U| + \epsilon)

    Args:
        joint: Matrix U (K, K), floating-point; its determinant is computed in float64.
        eps: Addend, more than 0: where U is singular, as without a sample of some class, the value is its logarithm.

    Returns:
        Scalar of the matrix's dtype.
    """
    determinant: Tensor = torch.linalg.det(joint.double())
    return -(determinant.abs() + eps).log().to(joint.dtype)
