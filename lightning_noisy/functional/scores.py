r"""How much each edge of a classifier matters.

A head is a sum over edges, :math:`z_o = b_o + \sum_i a_{oi}(x_i)` with the edge's activation
:math:`a_{oi}(x_i) = \sum_f c_{ofi}\, \phi_f(x_i)`: one term :math:`\phi(x) = x` in a linear head, splines and a base
function in a KAN head. So every score is a function of the basis :math:`\phi` (B, F, D) and the coefficients c
(K, F, D), and none needs the activations (B, K, D).

Statistics of a batch are sums: ``all_reduce`` adds them up over processes, in one call. Without it they are those of
this process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_noisy.functional.tracing import is_traced

AllReduce = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes."""

_CHUNK = 1 << 16
"""Elements of one plane of a chunk, so that its planes stay in the cache."""

_VANISHING = 1e-200
"""Variance of a feature that is constant in a batch: below any real one, and still an order by weight."""


def magnitude_scores(coefficients: Tensor) -> Tensor:
    r"""Size of each edge's coefficients, :math:`U_{oi} = \lVert c_{o \cdot i} \rVert_2`; :math:`|W_{oi}|` if linear.

    Args:
        coefficients: (K, F, D).

    Returns:
        Scores (K, D).
    """
    one_term = coefficients.shape[1] == 1
    return coefficients.squeeze(1).abs() if one_term else torch.linalg.vector_norm(coefficients, dim=1)


def signed_scores(coefficients: Tensor) -> Tensor:
    r"""Sum of each edge's coefficients, :math:`U_{oi} = \sum_f c_{ofi}`; :math:`W_{oi}` with its sign if linear.

    Args:
        coefficients: (K, F, D).

    Returns:
        Scores (K, D).
    """
    return coefficients.sum(dim=1)


def std_scores(basis: Tensor, coefficients: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    r"""Spread of each edge's activation over the batch.

    .. math::
        U_{oi} = \operatorname{std}_b\big(a_{oi}(x_{bi})\big)
               = \sqrt{c_{o \cdot i}^\top \operatorname{Cov}_b(\phi(x_{bi}))\, c_{o \cdot i}}

    The covariance comes from centered moments in float64: splines sum to one, so it is singular, and float32 would lose
    an edge that is nearly constant. Edges of a feature that is constant in the batch, to float32's rounding, have a
    spread below any other (1e-100) and rank among themselves by the size of their coefficients.

    Args:
        basis: (B, F, D).
        coefficients: (K, F, D).
        all_reduce: Adds statistics up over processes.

    Returns:
        Scores (K, D), float64. The deviation is that of the population, so that a batch of one is defined.
    """
    mean, covariance = _moments(basis, all_reduce)
    terms = basis.shape[1]
    constant = (covariance[:terms] <= (torch.finfo(torch.float32).eps * mean).square()).all(dim=0)
    least = torch.zeros_like(covariance)
    least[:terms] = _VANISHING
    return _quadratic_form(torch.where(constant, least, covariance), coefficients).sqrt_()


def activation_scores(basis: Tensor, coefficients: Tensor, all_reduce: AllReduce | None = None) -> Tensor:
    r"""Root mean square of each edge's activation over the batch, :math:`U_{oi} = \sqrt{E_b[a_{oi}(x_{bi})^2]}`.

    "Low-activation edges" in the abstract of Selective Edge Masking, read as a second moment.

    Args:
        basis: (B, F, D).
        coefficients: (K, F, D).
        all_reduce: Adds statistics up over processes.

    Returns:
        Scores (K, D), float64.
    """
    mean, covariance = _moments(basis, all_reduce)
    return _quadratic_form(covariance + _products(mean.unsqueeze(0)), coefficients).sqrt_()


def obd_scores(
    basis: Tensor, coefficients: Tensor, probabilities: Tensor, all_reduce: AllReduce | None = None
) -> Tensor:
    r"""Optimal Brain Damage: the loss that deleting an edge costs in second order, at a minimum of cross entropy.

    .. math:: U_{oi} = \tfrac12 E_b\big[p_{bo} (1 - p_{bo})\, a_{oi}(x_{bi})^2\big]

    For a linear head that is :math:`\tfrac12 W_{oi}^2 E_b[p_{bo} (1 - p_{bo})\, x_{bi}^2]`, with the diagonal of the
    weight's Hessian.

    Args:
        basis: (B, F, D).
        coefficients: (K, F, D).
        probabilities: Softmax of the logits of all edges, (B, K).
        all_reduce: Adds statistics up over processes.

    Returns:
        Scores (K, D), float32 or float64.

    Reference: LeCun, Denker and Solla, "Optimal Brain Damage", NeurIPS 1989.
    """
    batch, terms = basis.shape[:2]
    coefficients = coefficients.to(torch.promote_types(basis.dtype, coefficients.dtype))
    weight = (probabilities * (1 - probabilities)).to(coefficients.dtype)
    basis = basis.to(coefficients.dtype)
    if terms == 1:
        sums = (weight.t() @ basis.squeeze(1).square()) * coefficients.squeeze(1).square()
    else:
        # In four parts at least, so that (B, K, D) is never there as a whole.
        width = max(1, min(basis.shape[2] // 4, 16 * _CHUNK // max(1, batch * len(coefficients))))
        parts = zip(torch.split(basis, width, dim=2), torch.split(coefficients, width, dim=2), strict=True)
        activations = (torch.einsum("bfi,kfi->bki", *part) for part in parts)
        sums = torch.cat([torch.einsum("bki,bk->ki", a.square(), weight) for a in activations], dim=1)
    packed = torch.cat([sums.flatten(), sums.new_full((1,), batch)])
    if all_reduce is not None:
        packed = all_reduce(packed)
    return 0.5 * packed[:-1].view_as(sums) / packed[-1]


def gradient_scores(gradient: Tensor, coefficients: Tensor) -> Tensor:
    r"""First-order change of the loss when an edge is deleted, :math:`U_{oi} = |\sum_f c_{ofi}\, g_{ofi}|`.

    :math:`|W_{oi} g_{oi}|` for a linear head. The gradient is the dense one, :math:`g_{ofi} = \sum_b
    \partial L / \partial z_{bo}\, \phi_f(x_{bi})`, masked edges included: with their true gradient of zero they could
    never come back.

    Args:
        gradient: Dense gradient (K, F, D).
        coefficients: (K, F, D).

    Returns:
        Scores (K, D).
    """
    return (coefficients * gradient).sum(dim=1).abs()


def dense_gradient(logits_gradient: Tensor, basis: Tensor) -> Tensor:
    """Gradient (K, F, D) of all coefficients, masked or not, from the gradient (B, K) of the logits."""
    gradient = logits_gradient.to(torch.promote_types(logits_gradient.dtype, torch.float32))
    return (gradient.t() @ basis.flatten(1).to(gradient.dtype)).view(gradient.shape[1], *basis.shape[1:])


def _moments(basis: Tensor, all_reduce: AllReduce | None) -> tuple[Tensor, Tensor]:
    """Mean (F, D) and covariance of the basis, as in :func:`_products`."""
    count, terms, inputs = basis.shape
    width = inputs if is_traced() else max(1, 4 * _CHUNK // max(1, count * terms))
    parts = [_centered_moments(part) for part in torch.split(basis, width, dim=2)]
    mean, scatter = (torch.cat(pieces, dim=1) for pieces in zip(*parts, strict=True))
    if all_reduce is None:
        return mean, scatter / count
    raw = scatter + count * _products(mean.unsqueeze(0))
    packed = torch.cat([raw.flatten(), (count * mean).flatten(), mean.new_full((1,), count)])
    packed = all_reduce(packed)
    mean = packed[raw.numel() : -1].view_as(mean) / packed[-1]
    return mean, packed[: raw.numel()].view_as(raw) / packed[-1] - _products(mean.unsqueeze(0))


def _centered_moments(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F, D), and sums of the products of deviations from it, as in :func:`_products`."""
    values = basis.to(torch.float64, copy=True)
    mean = values.sum(dim=0) / max(len(values), 1)  # a process may have an empty share
    return mean, _products(values - mean if is_traced() else values.sub_(mean))


def _products(values: Tensor) -> Tensor:
    """Sums over b of v_k v_l for k <= l, by diagonals l - k: values (B, F, D) to (F (F + 1) / 2, D)."""
    terms = values.shape[1]
    if is_traced():
        return torch.stack([(values[:, k] * values[:, other]).sum(dim=0) for k, other in _pairs(terms)])
    return torch.cat([(values[:, : terms - d] * values[:, d:]).sum(dim=0) for d in range(terms)])


def _pairs(terms: int) -> list[tuple[int, int]]:
    """(k, l) with k <= l, by diagonals."""
    return [(k, k + d) for d in range(terms) for k in range(terms - d)]


def _quadratic_form(products: Tensor, coefficients: Tensor) -> Tensor:
    """c^T G c for each edge, at least 0, with G (F (F + 1) / 2, D) as in :func:`_products`: (K, D), float64."""
    classes, terms, inputs = coefficients.shape
    if is_traced():
        return _one_expression(products, coefficients.double()).clamp_min(0)
    diagonals = torch.split(products, list(range(terms, 0, -1)))
    form = products.new_empty(classes, inputs)
    rows = max(1, _CHUNK // inputs)
    for part, out in zip(torch.split(coefficients, rows), torch.split(form, rows), strict=True):
        weights = part.double()
        out.zero_()
        for k in range(terms):
            inner = weights[:, k] * diagonals[0][k]
            for d in range(1, terms - k):
                inner.addcmul_(weights[:, k + d], diagonals[d][k], value=2)
            out.addcmul_(weights[:, k], inner)
    return form.clamp_min_(0)


def _one_expression(products: Tensor, weights: Tensor) -> Tensor:
    """The same for a compiler, which makes one loop of it."""
    form = torch.zeros_like(weights[:, 0])
    for product, (k, other) in zip(products, _pairs(weights.shape[1]), strict=True):
        form = form + (1 if k == other else 2) * product * weights[:, k] * weights[:, other]
    return form
