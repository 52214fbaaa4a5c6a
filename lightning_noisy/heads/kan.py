"""The Kolmogorov-Arnold head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.splines import (
    adapted_knots,
    bspline_basis,
    even_knots,
    fit_splines,
    uniform_cubic_basis,
    uniform_knots,
)
from lightning_noisy.functional.tracing import is_traced
from lightning_noisy.heads.maskable import MaskableHead

_CUBIC = 3
_NOTHING = 1e-19
"""Size of a spline, and share of an edge, that counts as zero: 1 / _NOTHING does not overflow in float32."""


class KANHead(MaskableHead):
    r"""A Kolmogorov-Arnold classifier: each edge is a learned function, a spline plus a base function.

    .. math::
        z_o = \sum_i M_{oi} \Big( w_{oi} \operatorname{SiLU}(x_i)
              + s_{oi} \sum_{k=1}^{G + m} v_{oik} B_k(x_i) \Big)

    with B-splines B of order m on G grid intervals. Function, initialization law and state-dict keys (base_weight,
    spline_weight, spline_scaler, grid) are those of efficient-kan's ``KANLinear``, whose checkpoints load as they are.
    Splines vanish beyond m grid steps outside the grid ([-2.2, 2.2] by default), where the base function acts alone;
    features of a ReLU network go further, so ``normalize`` them or choose ``grid_range``.

    Basis and coefficients lie in planes, (B, G + m + 1, D) and (K, G + m + 1, D), and meet in one matrix product. On
    equidistant knots cubic splines are evaluated in closed form, also under ``compile`` of our modules; other orders
    and adapted grids by recursion, and so is all that is traced, exported or compiled by hand.

    Args:
        in_features: Features D.
        out_features: Classes K.
        grid_size: Grid intervals G, at least 1.
        spline_order: Order m of the splines, at least 0.
        scale_noise: Size of the splines at the start: they interpolate uniform noise in +- scale_noise / (2 G).
        scale_base: The base weight starts uniform in :math:`\pm\sqrt{6 / (D\,(1 + 5 s^2))}`, s being this:
            :math:`\pm 1/\sqrt D` at 1. Larger values give a *smaller* start, as in efficient-kan.
        scale_spline: The same for the scaler of the splines.
        grid_eps: Share of the equidistant grid in :meth:`update_grid`, in [0, 1]; the rest follows the quantiles.
        grid_range: Ends of the grid.
        normalize: Whether features are first normalized over each sample to mean 0 and variance 1 (layer
            normalization without parameters, so no state is added). Not in efficient-kan.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Liu et al., "KAN: Kolmogorov-Arnold Networks", 2024; Dynamic Connection Masking, arXiv 2508.09697 (DKAN: this
        head under a mask on both parts of an edge; that its authors use efficient-kan is an assumption). efficient-kan
        differs in :meth:`update_grid`, which see.

    Example:
        >>> import torch
        >>> KANHead(16, 4)(torch.randn(8, 16)).shape
        torch.Size([8, 4])
    """

    normalize = False
    _even_grid: tuple[Tensor, int, tuple[Tensor, Tensor] | None] | None = None
    _even_while_compiled: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        normalize: bool = False,
    ) -> None:
        super().__init__()
        check_count(grid_size, "grid_size")
        check_count(spline_order, "spline_order", 0)
        check_argument(0 <= grid_eps <= 1, "grid_eps", "a float in [0, 1]", grid_eps)
        ends = tuple(grid_range)
        ascending = len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf
        check_argument(ascending, "grid_range", "two finite ascending floats", grid_range)
        self.in_features = in_features
        self.out_features = out_features
        self.grid_size = grid_size
        self.spline_order = spline_order
        self.scale_noise = scale_noise
        self.scale_base = scale_base
        self.scale_spline = scale_spline
        self.grid_eps = grid_eps
        self.normalize = normalize
        self.base_activation = nn.SiLU()
        self.grid: Tensor
        self.register_buffer("grid", uniform_knots(grid_size, spline_order, *grid_range).repeat(in_features, 1))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, from efficient-kan's law."""
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5) * self.scale_base)
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5) * self.scale_spline)
        inner = slice(self.spline_order, self.grid.shape[1] - self.spline_order)
        noise = (torch.rand(self.in_features, self.grid_size + 1, self.out_features) - 0.5) * self.scale_noise
        basis = bspline_basis(self.grid[:, inner].t(), self.grid, self.spline_order)
        with torch.no_grad():
            self.spline_weight.copy_(fit_splines(basis, noise.to(basis) / self.grid_size).permute(2, 0, 1))

    def basis(self, features: Tensor) -> Tensor:
        """Splines and base function of each feature, (B, G + m + 1, D), at least float32."""
        features = self._normalized(features)
        return torch.cat([self._splines(features), self.base_activation(features).unsqueeze(1)], dim=1)

    def coefficients(self, mask: Tensor | None = None) -> Tensor:
        """Coefficients (K, G + m + 1, D): scaled spline weights, then the base weight."""
        scaler, base = (part if mask is None else part * mask for part in (self.spline_scaler, self.base_weight))
        if is_traced():
            return torch.cat([self.spline_weight.transpose(1, 2) * scaler.unsqueeze(1), base.unsqueeze(1)], dim=1)
        return cast(Tensor, _Planes.apply(self.spline_weight, scaler, base))

    def logits(self, basis: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a basis (B, G + m + 1, D), under a mask (K, D) or none."""
        return super().logits(basis.to(self.base_weight.dtype), mask)

    @override
    @contextmanager
    def looked_up(self) -> Iterator[None]:
        self._even_while_compiled = self._even()
        try:
            yield
        finally:
            self._even_while_compiled = None

    @torch.no_grad()
    def update_grid(self, features: Tensor, margin: float = 0.01) -> None:
        r"""Move the knots to where the features are, and refit the splines there by least squares.

        The new grid mixes equidistant knots with the quantiles of each feature, ``grid_eps`` to 1 - ``grid_eps``, and
        goes on by equidistant steps on either side. The splines before the scaler are fitted, so the function changes
        no more than the fit at the given features must. efficient-kan fits the splines after the scaler and then
        scales again, which changes the function.

        Call it outside a training step and, under DDP, with the same features on all processes.

        Args:
            features: (B, D), at least one row, all finite.
            margin: How far the grid goes beyond the features, at least 0.

        Raises:
            NoisyLabelError: An argument outside its range; the head stays as it was.
        """
        wanted = f"finite features (B, {self.in_features}), at least one row"
        valid = features.ndim == 2 and len(features) > 0 and features.shape[1] == self.in_features
        check_argument(valid, "features", wanted, tuple(features.shape))
        check_argument(bool(features.isfinite().all()), "features", wanted, "infinite ones or NaN")
        check_argument(margin >= 0, "margin", "a float of at least 0", margin)
        features = self._normalized(features).to(self.grid.device, torch.float64)
        before = self._splines(features)
        self.grid.copy_(adapted_knots(features, self.grid_size, self.spline_order, self.grid_eps, margin))
        transfer = fit_splines(self._splines(features), before.permute(2, 0, 1))
        self.spline_weight.copy_(torch.einsum("inm,oim->oin", transfer, self.spline_weight.double()))

    def regularization_loss(self, lam_activation: float = 1.0, lam_entropy: float = 1.0) -> Tensor:
        r"""Sparsity of the splines: the size of all, and the entropy of its distribution over edges.

        .. math::
            \lambda_a \sum_{oi} n_{oi} - \lambda_e \sum_{oi} \pi_{oi} \log \pi_{oi}, \qquad
            n_{oi} = \operatorname{mean}_k |v_{oik}|, \quad \pi = n / \textstyle\sum n

        The scaler does not enter, as in efficient-kan. Splines that are zero have no entropy and no gradient.
        """
        sizes = self.spline_weight.abs().mean(dim=2)
        total = sizes.sum()
        shares = sizes / total.clamp(min=_NOTHING)
        return lam_activation * total - lam_entropy * (shares * shares.clamp(min=_NOTHING).log()).sum()

    @property
    def num_terms(self) -> int:  # type: ignore[override]
        """Terms of an edge, G + m + 1."""
        return self.spline_weight.shape[2] + 1

    def extra_repr(self) -> str:
        """The plain arguments, for ``print``."""
        names = ("in_features", "out_features", "grid_size", "spline_order", "normalize")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def __getstate__(self) -> dict[str, Any]:
        """Copies look their grid up anew: a copied tensor starts with a version of its own."""
        return {name: value for name, value in super().__getstate__().items() if name != "_even_grid"}

    def _normalized(self, features: Tensor) -> Tensor:
        """Features in at least float32, normalized over each sample where asked for."""
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        return F.layer_norm(features, (self.in_features,)) if self.normalize else features

    def _splines(self, features: Tensor) -> Tensor:
        """The B-splines (B, G + m, D)."""
        cubic = self.spline_order == _CUBIC
        even = (self._even_while_compiled if is_traced() else self._even()) if cubic else None
        if even is None:
            return bspline_basis(features, self.grid.to(features), self.spline_order)
        origin, step = (part.to(features) for part in even)
        return uniform_cubic_basis(features, origin, step, self.spline_weight.shape[2])

    def _even(self) -> tuple[Tensor, Tensor] | None:
        """First knot and step (D,) of each feature's grid where all are equidistant; looked up once for each grid."""
        if self.grid.is_inference():
            return even_knots(self.grid)
        version = self.grid._version
        if self._even_grid is None or self._even_grid[0] is not self.grid or self._even_grid[1] != version:
            self._even_grid = (self.grid, version, even_knots(self.grid))
        return self._even_grid[2]


class _Planes(torch.autograd.Function):
    """Scaled spline weights (K, D, n) and base weight (K, D) as planes (K, n + 1, D), written once."""

    @staticmethod
    def forward(ctx: Any, spline_weight: Tensor, scaler: Tensor, base_weight: Tensor) -> Tensor:
        ctx.save_for_backward(spline_weight, scaler)
        classes, inputs, count = spline_weight.shape
        planes = base_weight.new_empty(classes, count + 1, inputs)
        torch.mul(spline_weight.transpose(1, 2), scaler.unsqueeze(1), out=planes[:, :count])
        planes[:, count] = base_weight
        return planes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spline_weight, scaler = ctx.saved_tensors
        splines, base = gradient[:, :-1], gradient[:, -1]
        spline_gradient = splines.transpose(1, 2) * scaler.unsqueeze(2)
        return spline_gradient, (splines * spline_weight.transpose(1, 2)).sum(dim=1), base
