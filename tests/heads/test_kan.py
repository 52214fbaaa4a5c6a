"""The KAN head against the textbook's recursion, its law at the start, its grids and its regularizer."""

import copy
import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from lightning_noisy import NoisyLabelError
from lightning_noisy.heads import KANHead
from lightning_noisy.heads import kan as kan_module
from tests.largest_tensor import LargestTensor
from tests.textbook_kan import KANLinear, textbook_basis

SHAPES = {"base_weight": (4, 3), "spline_weight": (4, 3, 8), "spline_scaler": (4, 3), "grid": (3, 12)}


def randomized(head, seed=0):
    """A head whose parameters are all of size one, so that none hides behind another."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return head


def textbook_splines(x, grid, order):
    """Splines (B, n, D) of points (B, D), by plain floats."""
    rows = [
        [textbook_basis(p, knots, order) for p, knots in zip(row, grid.tolist(), strict=True)] for row in x.tolist()
    ]
    return np.array(rows).transpose(0, 2, 1)


def textbook_logits(head, x):
    """Logits (B, K) of the formula in float64, from whatever the head's parameters and grid are."""
    base, splines, scaler = (
        p.detach().double().numpy() for p in (head.base_weight, head.spline_weight, head.spline_scaler)
    )
    x = x.double()
    basis = textbook_splines(x, head.grid.double(), head.spline_order)
    silu = x.numpy() / (1 + np.exp(-np.clip(x.numpy(), -700, 700)))
    return np.einsum("bni,oin,oi->bo", basis, splines, scaler) + silu @ base.T


def points_for(head, seed=0):
    """Features at every knot, just beside them, between, outside and very far away, of every input."""
    generator = torch.Generator().manual_seed(seed)
    grid = head.grid
    beside = torch.nextafter(grid, torch.full_like(grid, -math.inf))
    random = 3 * torch.randn(len(grid), 20, generator=generator, dtype=grid.dtype)
    far = torch.tensor([-1e4, 1e4, -30.0, 30.0], dtype=grid.dtype).expand(len(grid), 4)
    return torch.cat([grid, beside, random, far], dim=1).t()


def spread_grid(head, features, **options):
    """The head after its grid has moved to features."""
    head.update_grid(features, **options)
    return head


def jittered(head):
    """The head on knots that are off by a thousandth of a step."""
    head.grid += 1e-3 * (head.grid[:, 1:2] - head.grid[:, :1]) * torch.rand_like(head.grid)
    return head


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def made(name, dtype=torch.float64):
    """One of the heads, made in a dtype: a grid made in float32 would keep its rounding."""
    torch.manual_seed(0)
    with default_dtype(dtype):
        return randomized(HEADS[name]())


HEADS = {
    "default": lambda: KANHead(3, 4),
    "order 0": lambda: KANHead(3, 4, spline_order=0),
    "order 1": lambda: KANHead(3, 4, spline_order=1),
    "order 2": lambda: KANHead(3, 4, spline_order=2, grid_size=3),
    "order 4": lambda: KANHead(3, 4, spline_order=4, grid_size=2),
    "one interval": lambda: KANHead(3, 4, grid_size=1),
    "other range": lambda: KANHead(3, 4, grid_size=8, grid_range=(0.5, 4.0)),
    "adapted": lambda: spread_grid(KANHead(3, 4), torch.randn(50, 3).relu()),
    "adapted, order 2": lambda: spread_grid(KANHead(3, 4, spline_order=2), torch.randn(50, 3)),
    "nearly equidistant": lambda: jittered(KANHead(3, 4)),
    "affine": lambda: spread_grid(KANHead(3, 4, grid_eps=1.0), torch.randn(50, 3) * torch.tensor([0.1, 1.0, 9.0])),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_function_is_the_textbook_s(name, dtype, tolerance):
    head = made(name, dtype)
    x = points_for(head)
    logits = head(x)
    expected = textbook_logits(head, x)
    assert logits.dtype == dtype
    size = np.abs(x.double().numpy()).sum(axis=1, keepdims=True) + 10
    assert (np.abs(logits.detach().double().numpy() - expected) <= tolerance * size).all()


@pytest.mark.parametrize("name", ["default", "order 2", "order 4", "adapted", "affine"])
def test_gradients_are_the_textbook_s(name):
    head = made(name)
    other = KANLinear(3, 4, head.grid_size, head.spline_order).double()
    other.load_state_dict(head.state_dict())
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(9, 4, dtype=torch.float64)
    inputs = [[x, model.base_weight, model.spline_weight, model.spline_scaler] for model in (head, other)]
    ours, theirs = (
        torch.autograd.grad((model(x) * upstream).sum(), wanted)
        for model, wanted in zip((head, other), inputs, strict=True)
    )
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "masked"), [("default", False), ("default", True), ("order 2", False), ("adapted", True)]
)
def test_gradients_and_second_gradients(name, masked):
    head = made(name)
    if masked:
        head.edge_mask = torch.tensor([[0.0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]]).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    names = [key for key, _ in head.named_parameters()]

    def function(x, *parameters):
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), x)

    inputs = (x, *(p.detach().clone().requires_grad_() for p in head.parameters()))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", HEADS)
def test_nothing_is_nan(name):
    head = made(name, torch.float32)
    x = points_for(head).requires_grad_()
    logits = head(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x, create_graph=True)
    gradient.sum().backward()
    for tensor in (logits, gradient, x.grad, *(p.grad for p in head.parameters())):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("name", ["default", "one interval", "other range", "affine"])
def test_equidistant_cubic_grids_need_no_recursion(name, monkeypatch):
    head, x = made(name, torch.float32), torch.randn(5, 3)
    for module in (head, copy.deepcopy(head).double()):
        with monkeypatch.context() as patch:
            patch.delattr(kan_module, "bspline_basis")
            assert module(x.to(module.grid)).isfinite().all()


@pytest.mark.parametrize("name", ["order 2", "order 4", "adapted"])
def test_other_grids_need_no_closed_form(name, monkeypatch):
    head = made(name)
    monkeypatch.delattr(kan_module, "uniform_cubic_basis")
    assert head(torch.randn(5, 3, dtype=torch.float64)).isfinite().all()


def test_normalization_is_that_of_a_layer_without_parameters():
    torch.manual_seed(0)
    plain = randomized(KANHead(6, 4))
    normal = KANHead(6, 4, normalize=True)
    normal.load_state_dict(plain.state_dict(), strict=True)
    x = 50 + 100 * torch.randn(8, 6)
    torch.testing.assert_close(normal(x), plain(F.layer_norm(x, (6,))))
    for score in ("std", "obd"):
        torch.testing.assert_close(normal.edge_scores(x, score), plain.edge_scores(F.layer_norm(x, (6,)), score))
    normal.update_grid(x)
    plain.update_grid(F.layer_norm(x, (6,)))
    torch.testing.assert_close(normal.grid, plain.grid)


def test_features_of_half_precision_have_a_basis_of_full_precision():
    head, x = made("default", torch.float32), torch.randn(5, 3).bfloat16()
    basis = head.basis(x)
    assert basis.dtype == torch.float32
    torch.testing.assert_close(basis, head.basis(x.float()))
    assert head.basis(x.double()).dtype == torch.float64


def test_checkpoints_have_the_form_of_efficient_kan():
    head, other = KANHead(3, 4), KANLinear(3, 4)
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == SHAPES
    assert [key for key, _ in head.named_parameters()] == ["base_weight", "spline_weight", "spline_scaler"]
    assert sum(p.numel() for p in head.parameters()) == 10 * 3 * 4
    torch.testing.assert_close(head.grid, torch.tensor([[-2.2 + 0.4 * j for j in range(12)]] * 3))

    x = points_for(head)
    head.load_state_dict(other.state_dict(), strict=True)
    torch.testing.assert_close(head(x), other(x), rtol=1e-5, atol=1e-4)
    randomized(head)
    other.load_state_dict(head.state_dict(), strict=True)
    torch.testing.assert_close(head(x), other(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"grid_size": 8, "spline_order": 2, "grid_range": [-3, 1]}, {"spline_order": 4}]
)
def test_equals_the_package_efficient_kan(options):
    package = pytest.importorskip("efficient_kan")
    torch.manual_seed(0)
    other = package.KANLinear(3, 4, **options)
    head = KANHead(3, 4, **options)
    assert {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    head.load_state_dict(other.state_dict(), strict=True)
    x = points_for(head)
    torch.testing.assert_close(head(x), other(x), rtol=1e-5, atol=1e-4)
    randomized(head)
    other.load_state_dict(head.state_dict(), strict=True)
    torch.testing.assert_close(head(x), other(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(head.regularization_loss(), other.regularization_loss())


def assert_uniform(values, bound):
    """Kolmogorov and Smirnov's distance from the uniform law on [-bound, bound], at the level of 1e-4."""
    ranked = values.detach().double().flatten().sort().values / bound
    assert ranked[-1] <= 1 + 1e-6
    assert ranked[0] >= -1 - 1e-6
    law = (ranked + 1) / 2
    steps = torch.arange(len(law) + 1, dtype=torch.float64) / len(law)
    assert max((law - steps[:-1]).max(), (steps[1:] - law).max()) < 2.23 / math.sqrt(len(law))


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_base_weight_and_scaler_start_uniform_within_their_bounds(scale):
    torch.manual_seed(0)
    bound = math.sqrt(6 / (48 * (1 + 5 * scale**2)))
    assert_uniform(KANHead(48, 100, scale_base=scale).base_weight, bound)
    assert_uniform(KANHead(48, 100, scale_base=scale).spline_scaler, 1 / math.sqrt(48))
    assert_uniform(KANHead(48, 100, scale_spline=scale).spline_scaler, bound)
    assert_uniform(KANHead(48, 100, scale_spline=scale).base_weight, 1 / math.sqrt(48))


@pytest.mark.parametrize(("size", "order", "noise"), [(5, 3, 0.1), (3, 2, 1.0), (8, 1, 0.1), (1, 4, 0.3), (4, 0, 0.2)])
def test_splines_start_as_the_smallest_that_interpolate_noise(size, order, noise):
    torch.manual_seed(0)
    head = KANHead(20, 50, grid_size=size, spline_order=order, scale_noise=noise).double()
    knots = head.grid[:1, order : order + size + (order > 0)].t()  # with order 0 the last knot belongs to no interval
    basis = textbook_splines(knots, head.grid[:1], order)[:, :, 0]
    weights = head.spline_weight.detach().numpy()
    curves = weights @ basis.T
    assert_uniform(torch.from_numpy(curves), noise / (2 * size))
    correlation = np.corrcoef(curves.reshape(-1, curves.shape[-1]).T) if curves.shape[-1] > 1 else np.eye(1)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.15
    smallest = curves @ np.linalg.pinv(basis).T
    np.testing.assert_allclose(weights, smallest, rtol=0, atol=1e-5 * noise)


def test_a_reset_draws_anew():
    head = KANHead(3, 4)
    before = copy.deepcopy(head.state_dict())
    head.reset_parameters()
    for name in ("base_weight", "spline_weight", "spline_scaler"):
        assert (head.state_dict()[name] != before[name]).all()


FEATURES = {
    "normal": lambda: torch.randn(60, 3),
    "rectified": lambda: torch.randn(60, 3).relu(),
    "one dead": lambda: torch.randn(60, 3) * torch.tensor([1.0, 0.0, 1.0]) + torch.tensor([0.0, 0.4, 5.0]),
    "few values": lambda: torch.randint(-1, 2, (60, 3)).float(),
    "fewer rows than splines": lambda: torch.randn(4, 3),
    "one row": lambda: torch.randn(1, 3),
    "outliers": lambda: torch.randn(200, 3) * torch.where(torch.rand(200, 3) < 0.03, 30.0, 1.0),
}


@pytest.mark.parametrize("eps", [0.02, 0.0, 1.0])
@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize(("size", "order"), [(5, 3), (3, 2)])
def test_update_grid_gives_the_knots_and_the_best_splines(name, eps, size, order):
    torch.manual_seed(0)
    features = FEATURES[name]().double()
    head = randomized(KANHead(3, 4, size, order, grid_eps=eps).double())
    before = copy.deepcopy(head.state_dict())
    head.update_grid(features, margin=0.05)

    for j, column in enumerate(features.t().tolist()):
        values, rows = sorted(column), len(column)
        step = (values[-1] - values[0] + 0.1) / size
        inner = [
            eps * (values[0] - 0.05 + m * step) + (1 - eps) * values[m * (rows - 1) // size] for m in range(size + 1)
        ]
        left = [inner[0] - m * step for m in range(order, 0, -1)]
        right = [inner[-1] + m * step for m in range(1, order + 1)]
        np.testing.assert_allclose(head.grid[j].tolist(), left + inner + right, rtol=1e-12, atol=1e-12)

    old = textbook_splines(features, before["grid"], order)
    new = textbook_splines(features, head.grid, order)
    for j in range(3):
        curves = old[:, :, j] @ before["spline_weight"][:, j].numpy().T
        best = np.linalg.lstsq(new[:, :, j], curves, rcond=1e-5)[0]
        np.testing.assert_allclose(head.spline_weight[:, j].detach().numpy().T, best, rtol=1e-4, atol=1e-4)
        best = np.linalg.lstsq(new[:, :, j], curves, rcond=None)[0]
        unavoidable = np.sqrt(((new[:, :, j] @ best - curves) ** 2).mean())
        change = np.sqrt(((new[:, :, j] @ head.spline_weight[:, j].detach().numpy().T - curves) ** 2).mean())
        assert change <= 1.1 * unavoidable + 1e-4
    for unchanged in ("spline_scaler", "base_weight"):
        assert torch.equal(head.state_dict()[unchanged], before[unchanged])
    np.testing.assert_allclose(head(features).detach().numpy(), textbook_logits(head, features), rtol=1e-9, atol=1e-4)


@pytest.mark.parametrize("eps", [0.02, 0.0, 1.0])
@pytest.mark.parametrize("name", FEATURES)
def test_update_grid_in_float32_is_that_of_float64(name, eps):
    torch.manual_seed(0)
    features = FEATURES[name]()
    head = randomized(KANHead(3, 4, grid_eps=eps))
    twin = copy.deepcopy(head).double()
    head.update_grid(features)
    twin.update_grid(features.double())
    assert all(value.isfinite().all() for value in head.state_dict().values())
    torch.testing.assert_close(head.grid.double(), twin.grid, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head(features).double(), twin(features.double()), rtol=1e-3, atol=5e-3)


def test_update_grid_is_exact_where_the_new_splines_can_be():
    torch.manual_seed(0)
    features = torch.empty(200, 3).uniform_(-0.99, 0.99)
    features[:2] = torch.tensor([[-0.99], [0.99]])
    head = randomized(KANHead(3, 4, grid_eps=1.0))
    before = head(features)
    head.update_grid(features)  # onto the grid it has, [-1, 1]
    torch.testing.assert_close(head.grid, KANHead(3, 4).grid)
    torch.testing.assert_close(head(features), before, rtol=1e-4, atol=1e-4)


def test_a_constant_feature_and_no_margin_leave_no_grid_and_no_nan():
    head = randomized(KANHead(1, 3, grid_eps=1.0))
    head.update_grid(torch.ones(5, 1), margin=0.0)
    for value in (head(torch.tensor([[1.0], [0.0], [1e4]])), head.spline_weight):
        assert value.isfinite().all()


def test_update_grid_of_bfloat16_is_computed_in_full():
    torch.manual_seed(0)
    head = randomized(KANHead(3, 4)).bfloat16()
    before, features = copy.deepcopy(head), torch.randn(60, 3).bfloat16()
    head.update_grid(features)
    assert {value.dtype for value in head.state_dict().values()} == {torch.bfloat16}
    old = textbook_splines(features.double(), before.grid.double(), 3)
    new = textbook_splines(features.double(), head.grid.double(), 3)
    for j in range(3):
        curves = old[:, :, j] @ before.spline_weight[:, j].detach().double().numpy().T
        best = np.linalg.lstsq(new[:, :, j], curves, rcond=1e-5)[0].T
        np.testing.assert_allclose(head.spline_weight[:, j].detach().double().numpy(), best, rtol=2**-8, atol=1e-3)


def test_a_changed_grid_is_noticed():
    torch.manual_seed(0)
    features = torch.randn(40, 3).relu()
    adapted = spread_grid(randomized(KANHead(3, 4)), features)
    state, expected = adapted.state_dict(), adapted(features)

    def shows(head):
        head.load_state_dict(state)
        return torch.equal(head(features), expected)

    used = KANHead(3, 4)
    used(features)
    assert shows(copy.deepcopy(used))
    for loads in range(4):  # a copy's tensors count their changes anew
        twin = KANHead(3, 4)
        for _ in range(loads):
            twin.load_state_dict(twin.state_dict())
        twin(features)
        for later_loads in range(5):
            copied = copy.deepcopy(twin)
            for _ in range(later_loads):
                copied.load_state_dict(twin.state_dict())
            assert shows(copied)
    assert shows(used)
    replaced = KANHead(3, 4)
    replaced.load_state_dict({**state, "grid": replaced.grid})
    replaced.grid = KANHead(3, 4).grid
    replaced(features)
    replaced.grid = adapted.grid.clone()
    assert torch.equal(replaced(features), expected)
    with torch.inference_mode():
        built = KANHead(3, 4)
        built(features)
        assert shows(built)


@pytest.mark.parametrize(("activation", "entropy"), [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
def test_regularization_is_the_size_and_the_entropy(activation, entropy):
    head = randomized(KANHead(3, 4).double())
    sizes = np.abs(head.spline_weight.detach().numpy()).mean(axis=2)
    shares = sizes / sizes.sum()
    expected = activation * sizes.sum() - entropy * (shares * np.log(shares)).sum()
    loss = head.regularization_loss(activation, entropy)
    assert loss.item() == pytest.approx(expected, rel=1e-12)

    loss.backward()
    weight = head.spline_weight.detach().numpy()
    slope = activation - entropy * (np.log(shares) - (shares * np.log(shares)).sum()) / sizes.sum()
    np.testing.assert_allclose(head.spline_weight.grad.numpy(), slope[:, :, None] * np.sign(weight) / 8, rtol=1e-10)
    assert head.spline_scaler.grad is None


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1.0])
def test_regularization_of_splines_that_vanish_is_finite(scale):
    head = randomized(KANHead(3, 4))
    head.spline_weight.data *= scale
    head.spline_weight.data[1] = 0.0
    loss = head.regularization_loss()
    loss.backward()
    assert loss.isfinite()
    assert head.spline_weight.grad.isfinite().all()
    assert (head.spline_weight.grad[1] == 0).all()
    if scale == 0:
        assert loss == 0


@pytest.mark.parametrize("options", [{}, {"spline_order": 2}, {"normalize": True}])
def test_no_tensor_has_the_size_of_all_activations(options):
    batch, classes, inputs = 48, 40, 24
    head, features = KANHead(inputs, classes, **options), torch.randn(batch, inputs, requires_grad=True)
    for mask in (None, torch.ones(classes, inputs)):
        head.edge_mask = mask
        with LargestTensor() as largest:
            head(features).square().sum().backward()
            head.regularization_loss().backward()
            head.update_grid(features.detach())
            head(features).square().sum().backward()
        assert 0 < largest.elements < batch * classes * inputs / 2


def test_is_made_anywhere_in_any_dtype():
    with torch.device("meta"):
        assert KANHead(3, 4).spline_weight.is_meta
    for dtype in (torch.float64, torch.bfloat16):
        with default_dtype(dtype):
            assert {value.dtype for value in KANHead(3, 4).state_dict().values()} == {dtype}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid_size": 0}, "Expected argument `grid_size` to be an int of at least 1, but got 0."),
        ({"spline_order": -1}, "Expected argument `spline_order` to be an int of at least 0, but got -1."),
        ({"grid_eps": 1.5}, "Expected argument `grid_eps` to be a float in [0, 1], but got 1.5."),
        *(
            ({"grid_range": ends}, f"Expected argument `grid_range` to be two finite ascending floats, but got {ends}.")
            for ends in ((1.0, 1.0), (0.0, math.inf), (-math.inf, 0.0), (0.0, math.nan), (0.0, 1.0, 2.0), (1.0,))
        ),
    ],
)
def test_refuses_what_makes_no_grid(options, message):
    with pytest.raises(NoisyLabelError) as caught:
        KANHead(3, 4, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("features", "margin", "part"),
    [
        (torch.zeros(0, 3), 0.01, "`features` to be finite features (B, 3), at least one row, but got (0, 3)"),
        (torch.zeros(5, 2), 0.01, "but got (5, 2)"),
        (torch.zeros(5), 0.01, "but got (5,)"),
        (torch.tensor([[0.0, math.nan, 1.0]]), 0.01, "but got 'infinite ones or NaN'"),
        (torch.zeros(5, 3), -0.1, "`margin` to be a float of at least 0, but got -0.1"),
    ],
)
def test_update_grid_refuses_what_it_cannot_use_and_changes_nothing(features, margin, part):
    head = KANHead(3, 4)
    before = copy.deepcopy(head.state_dict())
    with pytest.raises(NoisyLabelError) as caught:
        head.update_grid(features, margin)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_prints_its_arguments():
    assert "in_features=3, out_features=4, grid_size=5, spline_order=3, normalize=False" in repr(KANHead(3, 4))
    assert isinstance(KANHead(3, 4).base_activation, nn.SiLU)
