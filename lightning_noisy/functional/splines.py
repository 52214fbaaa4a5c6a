"""B-splines in planar layout: values (B, n, D) with the features innermost, so that every operation is unit-stride."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_UNIT = 6 ** (-1 / 3)
"""Distance of two knots in the closed form: its cube is the sixth there."""
_EVEN = 1e-5
"""Largest deviation of knots from equidistant ones, in steps: float32 rounding gives 2e-6."""
_NEGLIGIBLE = 1e-5
"""Singular value of a fit that counts as zero, by the largest."""


def uniform_knots(grid_size: int, spline_order: int, low: float, high: float) -> Tensor:
    """Equidistant knots of ``grid_size`` intervals on [low, high], continued by ``spline_order`` on either side.

    Args:
        grid_size: Intervals G.
        spline_order: Order k; cubic splines have 3.
        low: Where the grid begins.
        high: Where it ends.

    Returns:
        Knots (G + 2k + 1,).
    """
    step = (high - low) / grid_size
    return torch.arange(-spline_order, grid_size + spline_order + 1) * step + low


def even_knots(knots: Tensor) -> tuple[Tensor, Tensor] | None:
    """First knot and step (D,) of each feature's knots (D, n) where all are equidistant; else None."""
    origin, step = knots[:, 0], (knots[:, -1] - knots[:, 0]) / (knots.shape[1] - 1)
    even = origin.unsqueeze(1) + step.unsqueeze(1) * torch.arange(knots.shape[1], device=knots.device)
    return (origin, step) if bool(((knots - even).abs() < _EVEN * step.unsqueeze(1)).all()) else None


def adapted_knots(features: Tensor, grid_size: int, spline_order: int, grid_eps: float, margin: float) -> Tensor:
    """Knots (D, G + 2m + 1) between equidistant ones and the quantiles of each feature.

    Args:
        features: (B, D).
        grid_size: Intervals G.
        spline_order: Order m.
        grid_eps: Share of the equidistant ones, in [0, 1].
        margin: How far these go beyond the features.
    """
    ordered = features.sort(dim=0).values
    picks = torch.linspace(0, len(features) - 1, grid_size + 1, device=features.device).long()
    step = (ordered[-1] - ordered[0] + 2 * margin) / grid_size
    steps = torch.arange(grid_size + 1, device=features.device).unsqueeze(1) * step
    inner = grid_eps * (ordered[0] - margin + steps) + (1 - grid_eps) * ordered[picks]
    outside = torch.arange(1, spline_order + 1, device=features.device).unsqueeze(1) * step
    return torch.cat([inner[:1] - outside.flip(0), inner, inner[-1:] + outside]).t()


def bspline_basis(x: Tensor, knots: Tensor, spline_order: int) -> Tensor:
    r"""All B-splines of any knots, by the recursion of Cox and de Boor.

    .. math::
        B_{k,0}(x) = [t_k \le x < t_{k+1}], \qquad
        B_{k,d}(x) = \frac{x - t_k}{t_{k+d} - t_k} B_{k,d-1}(x)
                   + \frac{t_{k+d+1} - x}{t_{k+d+1} - t_{k+1}} B_{k+1,d-1}(x)

    Terms between coinciding knots are zero.

    Args:
        x: Points (B, D).
        knots: Ascending knots (D, n + k + 1) of each feature.
        spline_order: Order k, at least 0.

    Returns:
        Basis (B, n, D).
    """
    t, points = knots.t(), x.unsqueeze(1)
    basis = ((points >= t[:-1]) & (points < t[1:])).to(x.dtype)
    for order in range(1, spline_order + 1):
        width = t[order:] - t[:-order]
        scale = torch.where(width > 0, 1 / width, torch.zeros_like(width))
        rising = (points - t[: -order - 1]) * scale[:-1] * basis[:, :-1]
        basis = rising + (t[order + 1 :] - points) * scale[1:] * basis[:, 1:]
    return basis


def uniform_cubic_basis(x: Tensor, origin: Tensor, step: Tensor, count: int) -> Tensor:
    r"""Cubic B-splines of equidistant knots :math:`t_k = t_0 + kh`, in closed form.

    .. math::
        B_k(x) = \tfrac16 \big( (2 - |d|)_+^3 - 4\,(1 - |d|)_+^3 \big), \qquad d = \frac{x - t_0}{h} - k - 2

    Equal to :func:`bspline_basis` with order 3, without branches; twice continuously differentiable, as the spline is.

    Args:
        x: Points (B, D).
        origin: First knot :math:`t_0` of each feature, (D,).
        step: Distance h of the knots of each feature, (D,).
        count: Number of splines n.

    Returns:
        Basis (B, n, D).
    """
    basis: Tensor = _UniformCubicBasis.apply((x - origin) * (_UNIT / step), count)
    return basis


class _UniformCubicBasis(torch.autograd.Function):
    """The closed form, in place, on positions in units in which knots are ``_UNIT`` apart."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(position)
        ctx.count = count
        outer, inner = _lobes(_distance(position, count))
        return outer.pow_(3).sub_(inner.pow_(3), alpha=4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (position,) = ctx.saved_tensors
        return (_CubicSlope.apply(position, ctx.count) * gradient).sum(dim=1).mul(-3), None


class _CubicSlope(torch.autograd.Function):
    r"""The derivative, over -3: :math:`\operatorname{sgn}(d) \big((2 - |d|)_+^2 - 4\,(1 - |d|)_+^2\big)`."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(position)
        ctx.count = count
        distance = _distance(position, count)
        sign = distance.sign()
        outer, inner = _lobes(distance)
        return outer.square_().sub_(inner.square_(), alpha=4).mul_(sign)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (position,) = ctx.saved_tensors
        outer, inner = _lobes(_distance(position, ctx.count))
        return ((4 * inner - outer) * gradient).sum(dim=1).mul(2), None


def _distance(position: Tensor, count: int) -> Tensor:
    """Distance d (B, n, D) of each point from the center of each spline."""
    centers = torch.arange(2, count + 2, dtype=position.dtype, device=position.device).mul_(_UNIT)
    return position.unsqueeze(1) - centers.unsqueeze(1)


def _lobes(distance: Tensor) -> tuple[Tensor, Tensor]:
    """:math:`(2 - |d|)_+` and :math:`(1 - |d|)_+`, of distances that are overwritten."""
    outer = distance.abs_().neg_().add_(2 * _UNIT).relu_()
    return outer, F.softshrink(outer, _UNIT)


def fit_splines(basis: Tensor, values: Tensor) -> Tensor:
    r"""Spline coefficients that fit values best in least squares; of several, those of the smallest norm.

    .. math:: c_j = A_j^{+} v_j

    Combinations of splines that the points hardly touch stay at zero (singular values up to 1e-5 of the largest): a
    single point at the foot of a spline would else ask for a coefficient of 1e10, which float32 cannot evaluate.

    Args:
        basis: Basis at the points, (B, n, D).
        values: Values at the points, (D, B, m).

    Returns:
        Coefficients (D, n, m) in the dtype of ``values``; computed in float64.
    """
    inverse: Tensor = torch.linalg.pinv(basis.double().permute(2, 0, 1), rtol=_NEGLIGIBLE)
    return (inverse @ values.double()).to(values.dtype)
