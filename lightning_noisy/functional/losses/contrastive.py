"""Two views of a sample are alike, and unlike those of other samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_noisy.functional.losses._numerics import full_precision


def view_contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""Normalized temperature-scaled cross entropy of SimCLR, for each view of each sample.

    .. math:: -\log \frac{\exp(\langle u_i, u_{i'} \rangle / T)}{\sum_{j \ne i} \exp(\langle u_i, u_j \rangle / T)}

    over all 2B views, with unit vectors u and i' the other view of the same sample.

    Args:
        first: Embeddings of one view, floating-point (B, D), B >= 1.
        second: Those of the other one, (B, D).
        temperature: T, more than 0.

    Returns:
        Losses (2B,), float32 or float64: those of the first views, then those of the second.

    References:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020.
    """
    unit = F.normalize(full_precision(torch.cat([first, second])), dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(own, -torch.inf)
    partner = torch.arange(len(unit), device=unit.device).roll(len(first))
    return F.cross_entropy(similarity, partner, reduction="none")
