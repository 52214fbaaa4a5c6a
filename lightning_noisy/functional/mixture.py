"""Which samples are clean, by a mixture of two components: Gaussian of losses or scores, beta of losses."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

_BINS = 100
_EM_STEPS = 10
_LEAST_BETA = 1e-3  # distance of scaled losses from 0 and from 1
_LEAST_SHARE = 1e-12  # of a component in a sample


@dataclass(frozen=True, eq=False)
class GaussianFit:
    """Two Gaussian components, that of clean samples first; float64 on the CPU."""

    clean: Tensor
    """Probability of each sample to be of the clean component, (N,), in [0, 1]."""

    weights: Tensor
    """Shares of the components, (2,)."""

    means: Tensor
    """Their means, (2,)."""

    variances: Tensor
    """Their variances, (2,)."""

    def densities(self, points: Tensor) -> Tensor:
        """The weighted density of each component at points (P,): float64 (2, P)."""
        distance = points.double().unsqueeze(0) - self.means.unsqueeze(1)
        variances = self.variances.unsqueeze(1)
        exponents = -distance.square() / (2 * variances) - (2 * math.pi * variances).log() / 2
        return self.weights.unsqueeze(1) * exponents.exp()


@dataclass(frozen=True, eq=False)
class BetaFit:
    """Two beta components of scaled losses, that of clean samples first; float64 on the CPU."""

    weights: Tensor
    """Shares of the components, (2,)."""

    a: Tensor
    """Their first parameters, (2,)."""

    b: Tensor
    """Their second parameters, (2,)."""

    bounds: tuple[float, float]
    """The losses that are scaled to 0 and to 1."""

    table: Tensor
    """Probability of a wrong label in each of 100 bins of scaled losses, (100,)."""

    def clean(self, losses: Tensor) -> Tensor:
        """Probability of each loss (N,) to be of the clean component, by the table: float64 (N,) on its device.

        Losses outside the bounds are in the first or the last bin.
        """
        bins = (_scaled(losses.double(), self.bounds) * _BINS).long().clamp(max=_BINS - 1)
        return 1 - self.table.to(losses.device)[bins]

    def densities(self, points: Tensor) -> Tensor:
        """The weighted density of each component at scaled losses (P,) in (0, 1): float64 (2, P)."""
        return _beta_logits(points.double(), self.weights, self.a, self.b).exp()


def normalized(values: Tensor) -> Tensor:
    r"""Values scaled to [0, 1]: :math:`(v - \min v) / (\max v - \min v)`.

    Args:
        values: Finite floating-point values (N,), N >= 1.

    Returns:
        The same shape and dtype; zeros where all are equal.

    Raises:
        NoisyLabelError: No values, or some that are not finite.
    """
    _check(values)
    least, most = values.aminmax()
    return (values - least) / torch.where(most > least, most - least, 1.0)


def gaussian_mixture(
    values: Tensor,
    seed: int,
    higher_is_clean: bool = False,
    max_iter: int = 10,
    tol: float = 1e-2,
    reg_covar: float = 5e-4,
) -> GaussianFit:
    r"""Fit two Gaussians to one value a sample; the one with the lower mean holds the clean samples.

    The defaults are those of DivideMix on :func:`normalized` losses; FINE fits its scores with ``higher_is_clean=True,
    max_iter=100, tol=1e-6, reg_covar=1e-6``. With few iterations the fit is far from converged, and a converged one
    selects other samples, so these settings are a part of the methods. The fit is scikit-learn's, begun by k-means.

    Where all values are equal, and so of a single one, nothing tells samples apart: all are clean, of one component
    with a variance of ``reg_covar``.

    Args:
        values: Finite floating-point values (N,), N >= 1, on any device.
        seed: Seed of k-means. Official codes pass none. Well separated values do not depend on it.
        higher_is_clean: Whether clean samples have the component of the higher mean, as scores do, not losses.
        max_iter: Most steps of expectation maximization.
        tol: The gain of mean log-likelihood below which it stops.
        reg_covar: Added to each variance.

    Returns:
        Posteriors and components.

    Raises:
        NoisyLabelError: No values, or some that are not finite.

    References:
        Li et al., DivideMix, ICLR 2020; Kim et al., FINE Samples for Learning with Noisy Labels, NeurIPS 2021.
    """
    _check(values)
    samples = values.detach().cpu().double().unsqueeze(1)
    if bool((samples == samples[0]).all()):
        mean, weights = samples[0].expand(2), torch.tensor([1.0, 0.0], dtype=torch.float64)
        return GaussianFit(torch.ones_like(samples[:, 0]), weights, mean, torch.full_like(mean, reg_covar))
    mixture = GaussianMixture(2, max_iter=max_iter, tol=tol, reg_covar=reg_covar, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published settings stop early
        posteriors = torch.from_numpy(mixture.fit(samples.numpy()).predict_proba(samples.numpy()))
    means = torch.from_numpy(mixture.means_[:, 0])
    order = means.argsort(stable=True, descending=higher_is_clean)
    weights, variances = torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.covariances_[:, 0, 0])
    return GaussianFit(posteriors[:, order[0]], weights[order], means[order], variances[order])


def beta_mixture(losses: Tensor) -> BetaFit:
    r"""Fit two beta distributions to losses; the one with the higher mean holds the wrong labels.

    Losses outside the 5th and the 95th percentile are left out of the fit; the rest is scaled to [1e-3, 1 - 1e-3] by
    these two. Ten steps of expectation maximization begin at :math:`(a, b)` = (1, 2) for clean labels and (2, 1) for
    wrong ones with equal weights; each matches the weighted mean m and variance s of a component:

    .. math:: a = m \Big(\frac{m (1 - m)}{s} - 1\Big), \qquad b = \frac{a (1 - m)}{m}

    The posterior of a wrong label becomes a table of 100 bins, which stays at its maximum once it has reached it.

    The official code also adds 1e-5 to the lower bound and 1e-6 to the range, and takes its second component for that
    of wrong labels, whichever mean it ends up with.

    Args:
        losses: Finite floating-point losses (N,), N >= 1, on any device.

    Returns:
        Components, and a table that gives the posterior of any loss. Where the losses between the two percentiles are
        all equal, and so with a single one, no label is wrong: the table is zero, the weights are (1, 0).

    Raises:
        NoisyLabelError: No values, or some that are not finite.

    References:
        Arazo et al., Unsupervised Label Noise Modeling and Loss Correction, ICML 2019.
    """
    _check(losses)
    every = losses.detach().cpu().double()
    lowest, highest = bounds = _percentile(every, 0.05), _percentile(every, 0.95)
    weights = torch.full((2,), 0.5, dtype=torch.float64)
    a, b = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    inside = every[(every >= lowest) & (every <= highest)]
    if bool((inside == inside[:1]).all()):
        return BetaFit(torch.tensor([1.0, 0.0]).double(), a, b, bounds, torch.zeros(_BINS).double())
    scaled = _scaled(inside, bounds).clamp(_LEAST_BETA, 1 - _LEAST_BETA)
    for _ in range(_EM_STEPS):
        shares = _beta_logits(scaled, weights, a, b).softmax(dim=0).clamp(min=_LEAST_SHARE)
        totals = shares.sum(dim=1)
        mean = shares @ scaled / totals
        variance = (shares * (scaled - mean.unsqueeze(1)).square()).sum(dim=1) / totals
        a = mean * (mean * (1 - mean) / variance - 1)
        b = a * (1 - mean) / mean
        weights = totals / totals.sum()
    order = (a / (a + b)).argsort(stable=True)
    weights, a, b = weights[order], a[order], b[order]
    points = torch.linspace(_LEAST_SHARE, 1 - _LEAST_SHARE, _BINS, dtype=torch.float64)
    table = _beta_logits(points, weights, a, b).softmax(dim=0)[1]
    table[int(table.argmax()) :] = table.max()
    return BetaFit(weights, a, b, bounds, table)


def _beta_logits(points: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Logarithms of the weighted beta densities, (2, P)."""
    scale = weights.log() + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    return scale.unsqueeze(1) + torch.outer(a - 1, points.log()) + torch.outer(b - 1, (-points).log1p())


def _scaled(losses: Tensor, bounds: tuple[float, float]) -> Tensor:
    lowest, highest = bounds
    return ((losses - lowest) / max(highest - lowest, torch.finfo(losses.dtype).tiny)).clamp(0, 1)


def _percentile(values: Tensor, share: float) -> float:
    """By linear interpolation; ``torch.quantile`` refuses more than 16 million values."""
    ordered = values.sort().values
    place = share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return float(torch.lerp(ordered[below], ordered[above], place - below))


def _check(values: Tensor) -> None:
    if values.ndim != 1 or len(values) == 0:
        raise NoisyLabelError(f"A mixture is fitted to values (N,) with N >= 1, but got shape {tuple(values.shape)}.")
    finite = values.isfinite()
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise NoisyLabelError(
            f"A mixture is fitted to finite values, but {int((~finite).sum())} of {len(values)} are not, the first at "
            f"position {first}: {float(values[first])}. Lower the learning rate, or look at this sample."
        )
