"""A KAN layer in plain PyTorch: what :class:`lightning_noisy.heads.KANHead` is measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.functional.masks import dropped_edges


class TextbookKAN(nn.Module):
    """Recursion of Cox and de Boor with a basis (B, D, n), one product for the splines and one for the base function.

    The product over features and splines is one of matrices, as in efficient-kan: an ``einsum`` takes half as long
    again at 1000 classes.

    Cubic splines on 5 intervals of [-1, 1], as ``KANHead`` has by default, whose state dict it loads.

    Args:
        in_features: Features D.
        out_features: Classes K.
    """

    order = 3

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        knots = torch.arange(-3, 9) * 0.4 - 1
        self.grid: Tensor
        self.register_buffer("grid", knots.repeat(in_features, 1))
        self.base_weight = nn.Parameter(0.1 * torch.randn(out_features, in_features))
        self.spline_weight = nn.Parameter(0.1 * torch.randn(out_features, in_features, 8))
        self.spline_scaler = nn.Parameter(0.1 * torch.randn(out_features, in_features))

    def splines(self, features: Tensor) -> Tensor:
        """All splines of features (B, D): (B, D, n)."""
        x, t = features.unsqueeze(2), self.grid
        splines = ((x >= t[:, :-1]) & (x < t[:, 1:])).to(features.dtype)
        for d in range(1, self.order + 1):
            rising = (x - t[:, : -d - 1]) / (t[:, d:-1] - t[:, : -d - 1])
            falling = (t[:, d + 1 :] - x) / (t[:, d + 1 :] - t[:, 1:-d])
            splines = rising * splines[:, :, :-1] + falling * splines[:, :, 1:]
        return splines

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        return self.logits(features)

    def logits(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, K) under a mask (K, D) or none."""
        scaler, base_weight = self.spline_scaler, self.base_weight
        if mask is not None:
            scaler, base_weight = scaler * mask, base_weight * mask
        weight = self.spline_weight * scaler.unsqueeze(2)
        return F.linear(F.silu(features), base_weight) + F.linear(self.splines(features).flatten(1), weight.flatten(1))


class NaiveDKAN(TextbookKAN):
    """The textbook layer under the mask as published: the spread of all activations (B, K, D), in every step.

    Args:
        in_features: Features D.
        out_features: Classes K.
        ratio: Share of the edges that each feature loses.
    """

    def __init__(self, in_features: int, out_features: int, ratio: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        self.ratio = ratio

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K) under the mask of this batch."""
        return self.logits(features, self.mask(features))

    @torch.no_grad()
    def mask(self, features: Tensor) -> Tensor:
        """The mask (K, D) of a batch."""
        weight = self.spline_weight * self.spline_scaler.unsqueeze(2)
        activations = torch.einsum("bin,oin->boi", self.splines(features), weight)
        activations += F.silu(features).unsqueeze(1) * self.base_weight
        spread = activations.std(dim=0)
        lowest = spread.topk(dropped_edges(len(spread), self.ratio), dim=0, largest=False).indices
        return torch.ones_like(spread).scatter_(0, lowest, 0.0)
