"""A KAN layer as the textbook writes it: the recursion in any arithmetic, and a layer another project might have."""

from itertools import pairwise

import torch
from torch import nn


def textbook_basis(x, knots, order):
    """B-splines at one point by Cox and de Boor's recursion, in the arithmetic of the knots: floats or fractions."""
    values = [1 * (left <= x < right) for left, right in pairwise(knots)]
    for degree in range(1, order + 1):
        values = [
            _share(x - knots[k], knots[k + degree] - knots[k]) * values[k]
            + _share(knots[k + degree + 1] - x, knots[k + degree + 1] - knots[k + 1]) * values[k + 1]
            for k in range(len(values) - 1)
        ]
    return values


def textbook_slope(x, knots, order, derivative=1):
    """The derivative of the same, by the differences of splines one order lower."""
    if derivative == 0:
        return textbook_basis(x, knots, order)
    lower = textbook_slope(x, knots, order - 1, derivative - 1)
    return [
        order
        * (_share(lower[k], knots[k + order] - knots[k]) - _share(lower[k + 1], knots[k + order + 1] - knots[k + 1]))
        for k in range(len(lower) - 1)
    ]


def _share(part, whole):
    return part / whole if whole else 0 * part


class KANLinear(nn.Module):
    """The attributes, parameters and function of efficient-kan's layer, none of its code; parameters are random."""

    def __init__(
        self,
        in_features,
        out_features,
        grid_size=5,
        spline_order=3,
        enable_standalone_scale_spline=True,
        base_activation=nn.SiLU,
        grid_eps=0.02,
        grid_range=(-1, 1),
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.grid_eps, self.enable_standalone_scale_spline = grid_eps, enable_standalone_scale_spline
        low, high = grid_range
        knots = [low + j * (high - low) / grid_size for j in range(-spline_order, grid_size + spline_order + 1)]
        self.register_buffer("grid", torch.tensor([knots] * in_features))
        self.base_weight = nn.Parameter(torch.randn(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.randn(out_features, in_features, grid_size + spline_order))
        if enable_standalone_scale_spline:
            self.spline_scaler = nn.Parameter(torch.randn(out_features, in_features))
        self.base_activation = base_activation()

    def forward(self, x):
        scaler = self.spline_scaler if self.enable_standalone_scale_spline else torch.ones_like(self.base_weight)
        activations = self.base_weight * self.base_activation(x).unsqueeze(-2)
        for k, spline in enumerate(self.splines(x)):
            activations = activations + scaler * self.spline_weight[:, :, k] * spline.unsqueeze(-2)
        return activations.sum(dim=-1)

    def splines(self, x):
        t = self.grid.unbind(dim=1)
        values = [torch.where((t[k] <= x) & (x < t[k + 1]), 1.0, 0.0).to(x.dtype) for k in range(len(t) - 1)]
        for d in range(1, self.spline_order + 1):
            values = [
                (x - t[k]) / (t[k + d] - t[k]) * values[k]
                + (t[k + d + 1] - x) / (t[k + d + 1] - t[k + 1]) * values[k + 1]
                for k in range(len(values) - 1)
            ]
        return values
