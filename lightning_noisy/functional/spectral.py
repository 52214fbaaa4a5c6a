"""Which samples are clean, by how well their features align with the main direction of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.functional.mixture import gaussian_mixture


def class_directions(features: Tensor, labels: Tensor, num_classes: int, chosen: Tensor | None = None) -> Tensor:
    r"""The first right-singular vector of each class's features.

    .. math:: v_k = \arg\max_{|v| = 1} \sum_{i : y_i = k} \langle f_i, v \rangle^2

    It is the eigenvector of the largest eigenvalue of the D x D Gram matrix :math:`\sum_i f_i f_i^\top`; the singular
    value decomposition of the official code makes an N x N matrix beside. Its sign is arbitrary.

    Args:
        features: Floating-point features (N, D), not centred.
        labels: int64 (N,), values in [0, K).
        num_classes: K.
        chosen: The samples that count, bool (N,); None for all.

    Returns:
        float64 (K, D) on the features' device; zeros for a class that has no sample, or none with features.

    References:
        Kim et al., FINE Samples for Learning with Noisy Labels, NeurIPS 2021.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if chosen is None else chosen
    directions = features.new_zeros(num_classes, features.shape[1], dtype=torch.float64)
    for label in range(num_classes):
        own = features[counted & (labels == label)].double()
        if own.any():
            directions[label] = torch.linalg.eigh(own.T @ own).eigenvectors[:, -1]
    return directions


def alignment(features: Tensor, labels: Tensor, directions: Tensor) -> Tensor:
    r"""How well features align with the direction of their class: :math:`|\langle v_{y_i}, f_i / |f_i| \rangle|`.

    The paper squares it, the official code does not, and neither does this.

    Args:
        features: Floating-point features (N, D).
        labels: int64 (N,), values in [0, K).
        directions: Unit vectors (K, D), or zeros.

    Returns:
        float64 (N,), in [0, 1] up to rounding; 0 where features or direction are zero.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return (unit * directions[labels]).sum(dim=1).abs()


def clean_by_class(scores: Tensor, labels: Tensor, num_classes: int, seed: int) -> Tensor:
    """The probability of each sample to be clean, by a Gaussian mixture in each class, with the settings of FINE.

    Args:
        scores: Finite values (N,), the higher the cleaner, such as :func:`alignment`.
        labels: int64 (N,), values in [0, K). In a class of one sample, or of equal scores, all are clean.
        num_classes: K; a class may have no sample.
        seed: Seed of the fits.

    Returns:
        float64 (N,) on the CPU, in [0, 1].

    Raises:
        NoisyLabelError: A score is not finite.
    """
    clean = torch.zeros(len(scores), dtype=torch.float64)
    for own in (labels == label for label in range(num_classes)):
        if own.any():
            fit = gaussian_mixture(scores[own], seed, higher_is_clean=True, max_iter=100, tol=1e-6, reg_covar=1e-6)
            clean[own.cpu()] = fit.clean
    return clean
