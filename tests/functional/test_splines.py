"""Splines against Cox and de Boor's recursion in fractions, fits against LAPACK's least squares."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_noisy.functional.splines import bspline_basis, fit_splines, uniform_cubic_basis, uniform_knots
from tests.textbook_kan import textbook_slope

FAR = [-1e9, -1e4, -40.0, 40.0, 1e4, 1e9]


def exact(points, knots, order, derivative=0):
    """Splines (B, n, D) or their derivative by exact arithmetic, from points (B, D) and knots (D, m)."""
    grids = [[Fraction(t) for t in row] for row in knots]
    rows = [
        [textbook_slope(Fraction(x), grid, order, derivative) for x, grid in zip(row, grids, strict=True)]
        for row in points
    ]
    return torch.from_numpy(np.array(rows, dtype=np.float64)).transpose(1, 2)


def slopes(basis, points):
    """The derivative (B, n, D) of each spline by its own point."""
    gradients = [torch.autograd.grad(plane.sum(), points, create_graph=True)[0] for plane in basis.unbind(dim=1)]
    return torch.stack(gradients, dim=1)


def points_for(knots, generator):
    """Points (B, D) at every knot of each feature, just beside them, between, outside and very far away."""
    low, high = knots[:, 0].min(), knots[:, -1].max()
    columns = [
        np.concatenate([row, np.nextafter(row, -np.inf), generator.uniform(low - 1, high + 1, 12), FAR])
        for row in knots
    ]
    return torch.from_numpy(np.stack(columns, axis=1))


@st.composite
def grids(draw):
    """Order and ascending knots (D, n + order + 1), some of which coincide."""
    order, count, features = draw(st.integers(0, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 2))
    steps = st.sampled_from([0.0, 0.25, 0.3, 1.0, 2.5])
    size = count + order + 1
    rows = [
        [draw(st.floats(-3, 3)), *draw(st.lists(steps, min_size=size - 1, max_size=size - 1))] for _ in range(features)
    ]
    return order, np.cumsum(np.array(rows), axis=1), draw(st.integers(0, 2**32 - 1))


@pytest.mark.parametrize(("size", "order", "low", "high"), [(5, 3, -1.0, 1.0), (1, 0, 0.0, 3.0), (7, 2, -2.5, 4.0)])
def test_knots_are_equidistant_and_go_on_by_the_order(size, order, low, high):
    knots = uniform_knots(size, order, low, high)
    step = Fraction(high - low) / size
    expected = [float(Fraction(low) + j * step) for j in range(-order, size + order + 1)]
    assert knots.dtype == torch.float32
    np.testing.assert_allclose(knots.numpy(), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(grids())
def test_recursion_equals_exact_arithmetic(grid):
    order, knots, seed = grid
    points = points_for(knots, np.random.default_rng(seed))
    basis = bspline_basis(points, torch.from_numpy(knots), order)
    assert basis.dtype == torch.float64
    torch.testing.assert_close(basis, exact(points.tolist(), knots.tolist(), order), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_slope_of_the_recursion_equals_exact_arithmetic(order):
    knots = np.array([[-1.0, -0.5, 0.0, 0.3, 0.3, 1.0, 2.0, 2.5], [0.0, 1, 2, 3, 4, 5, 6, 7]])
    points = points_for(knots, np.random.default_rng(0)).requires_grad_()
    slope = slopes(bspline_basis(points, torch.from_numpy(knots), order), points)
    expected = exact(points.tolist(), knots.tolist(), order, derivative=1)
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-11, atol=1e-11)


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.05, 3)), min_size=1, max_size=2),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
)
def test_closed_form_equals_exact_arithmetic_up_to_its_second_derivative(lines, count, seed):
    origin, step = torch.tensor(lines, dtype=torch.float64).t()
    knots = [[Fraction(t) + j * Fraction(h) for j in range(count + 4)] for t, h in lines]
    points = points_for(np.array(knots, dtype=np.float64), np.random.default_rng(seed)).requires_grad_()
    basis = uniform_cubic_basis(points, origin, step, count)
    slope = slopes(basis, points)
    curvature = torch.stack(
        [torch.autograd.grad(part.sum(), points, retain_graph=True)[0] for part in slope.unbind(1)], 1
    )
    size = step.reciprocal()
    for derivative, values in enumerate((basis, slope / size, curvature / size**2)):
        expected = exact(points.tolist(), knots, 3, derivative) / size**derivative
        torch.testing.assert_close(values.detach(), expected, rtol=0, atol=5e-12 / min(1, step.min().item()))


@pytest.mark.parametrize("closed", [True, False])
def test_float32_loses_little_and_nothing_is_nan(closed):
    knots = uniform_knots(5, 3, -1.0, 1.0).repeat(2, 1)
    points = points_for(knots.double().numpy(), np.random.default_rng(1)).float().requires_grad_()
    step = (knots[:, -1] - knots[:, 0]) / 11
    basis = uniform_cubic_basis(points, knots[:, 0], step, 8) if closed else bspline_basis(points, knots, 3)
    slope = slopes(basis, points)
    (curvature,) = torch.autograd.grad(slope.sum(), points)
    assert basis.dtype == torch.float32
    torch.testing.assert_close(basis.double(), exact(points.tolist(), knots.tolist(), 3), rtol=0, atol=2e-6)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()


def test_gradients_and_second_gradients():
    points = torch.linspace(-0.37, 7.41, 18, dtype=torch.float64).view(9, 2).requires_grad_()
    knots = torch.tensor([[-1.0, 0, 0.6, 1.5, 2, 3.2, 4, 6, 7], [0.0, 1, 2, 3, 4, 5, 6, 7, 8]], dtype=torch.float64)
    origin, step = torch.tensor([-1.0, 0.5]).double(), torch.tensor([0.8, 1.1]).double()
    for order in (2, 3, 4):
        assert gradcheck(lambda x, order=order: bspline_basis(x, knots, order), points)
        assert gradgradcheck(lambda x, order=order: bspline_basis(x, knots, order), points)
    assert gradcheck(lambda x: uniform_cubic_basis(x, origin, step, 6), points)
    assert gradgradcheck(lambda x: uniform_cubic_basis(x, origin, step, 6), points)


@pytest.mark.parametrize("rows", [1, 3, 8, 40])
def test_fit_is_the_least_squares_solution_of_the_smallest_norm(rows):
    generator = np.random.default_rng(rows)
    basis, values = generator.standard_normal((rows, 6, 3)), generator.standard_normal((3, rows, 4))
    basis[:, 4, 1] = 0.0  # touched by no point
    basis[:, 3, 2] = basis[:, 2, 2]  # two that the points cannot tell apart
    fitted = fit_splines(torch.from_numpy(basis), torch.from_numpy(values)).numpy()
    for j in range(3):
        expected = np.linalg.lstsq(basis[:, :, j], values[j], rcond=None)[0]
        np.testing.assert_allclose(fitted[j], expected, rtol=1e-9, atol=1e-9)


def test_fit_keeps_the_dtype_of_the_values_and_computes_in_float64():
    basis = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2**-12]]).unsqueeze(2)
    fitted = fit_splines(basis, torch.tensor([[[1.0], [1.0 + 2**-12]]]))
    assert fitted.dtype == torch.float32
    torch.testing.assert_close(fitted[0, :, 0], torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6)


def test_fit_leaves_a_spline_alone_that_a_point_touches_at_its_foot():
    basis = torch.tensor([[1.0, 0.0], [0.0, 1e-7]], dtype=torch.float64).unsqueeze(2)
    fitted = fit_splines(basis, torch.ones(1, 2, 1, dtype=torch.float64))
    assert fitted.flatten().tolist() == [1.0, 0.0]
