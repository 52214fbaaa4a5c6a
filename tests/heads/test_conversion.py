"""Layers of other projects become heads and plain layers again, as the same object."""

import copy

import pytest
import torch
from torch import nn

from lightning_noisy.heads import CosineHead, DropConnectHead, DropoutHead, KANHead, LinearHead
from lightning_noisy.heads.conversion import maskable_class
from lightning_noisy.heads.convolution import ConvolutionHead
from tests.textbook_kan import KANLinear

HEADS = [LinearHead, CosineHead, DropoutHead, DropConnectHead, KANHead]


class SpecialLinear(nn.Linear):
    """A subclass may compute anything."""


@pytest.mark.parametrize("kind", HEADS)
def test_heads_stay_what_they_are(kind):
    assert maskable_class(kind(3, 4)) is kind


def test_what_can_be_masked_and_what_cannot():
    assert maskable_class(nn.Linear(3, 4)) is LinearHead
    assert maskable_class(KANLinear(3, 4)) is KANHead
    assert maskable_class(KANLinear(3, 4, grid_size=2, spline_order=1)) is KANHead
    assert maskable_class(nn.Conv2d(3, 4, 1, padding="same", bias=False)) is ConvolutionHead
    convolutions = [
        nn.Conv2d(4, 4, 3),
        *(nn.Conv2d(4, 4, 1, **o) for o in ({"stride": 2}, {"padding": 1}, {"groups": 2})),
    ]
    others = [SpecialLinear(3, 4), nn.Conv1d(3, 4, 1), nn.Sequential(nn.Linear(3, 4)), nn.Bilinear(3, 3, 4), nn.ReLU()]
    assert [maskable_class(layer) for layer in (*convolutions, *others)] == [None] * 9


@pytest.mark.parametrize("name", ["base_weight", "spline_weight", "spline_scaler", "grid"])
def test_a_layer_lacking_a_part_of_efficient_kan_or_of_other_shapes_is_none(name):
    lacking = KANLinear(3, 4)
    delattr(lacking, name)
    assert maskable_class(lacking) is None
    other = KANLinear(3, 4)
    part = getattr(other, name).detach()
    for shape in ((part.shape[0] + 1, *part.shape[1:]), (*part.shape[:-1], part.shape[-1] + 1), (5,), ()):
        setattr(other, name, nn.Parameter(torch.zeros(shape)) if name != "grid" else torch.zeros(shape))
        assert maskable_class(other) is None


def test_a_layer_whose_parts_are_all_vectors_is_none():
    layer = KANLinear(3, 4)
    for name in ("base_weight", "spline_weight", "spline_scaler"):
        setattr(layer, name, nn.Parameter(torch.zeros(3)))
    assert maskable_class(layer) is None


def test_without_a_scaler_or_an_activation_it_is_none():
    assert maskable_class(KANLinear(3, 4, enable_standalone_scale_spline=False)) is None
    for name in ("base_activation", "spline_order"):
        layer = KANLinear(3, 4)
        delattr(layer, name)
        assert maskable_class(layer) is None


@pytest.mark.parametrize(
    "added",
    [
        lambda layer: layer.add_module("norm", nn.LayerNorm(3)),
        lambda layer: layer.register_parameter("bias", nn.Parameter(torch.zeros(4))),
        lambda layer: layer.register_buffer("mask", torch.ones(4, 3), persistent=False),
    ],
)
def test_a_kan_with_something_added_computes_something_else(added):
    layer = KANLinear(3, 4, base_activation=nn.PReLU)
    assert maskable_class(layer) is KANHead
    added(layer)
    assert maskable_class(layer) is None


LAYERS = {
    "linear": lambda: nn.Linear(3, 4),
    "linear without bias": lambda: nn.Linear(3, 4, bias=False),
    "kan": lambda: KANLinear(3, 4),
    "kan of order 2": lambda: KANLinear(3, 4, grid_size=3, spline_order=2, grid_range=(-2, 1)),
    "kan of another activation": lambda: KANLinear(3, 4, base_activation=nn.Tanh),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_converted_layer_is_the_same_object_with_the_same_function(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(6, 3, dtype=torch.float64)
    before, expected = copy.deepcopy(layer), layer(x)
    parameters, state = dict(layer.named_parameters()), layer.state_dict()
    attributes, own_class = dict(vars(layer)), type(layer)

    layer.__class__ = maskable_class(layer)
    # The other project's grid is made in float32 and equidistant to its rounding; a closed form takes it as exact.
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert list(layer.state_dict()) == list(state)
    assert all(parameter is parameters[key] for key, parameter in layer.named_parameters())
    assert layer.edge_scores(x).shape == (4, 3)
    assert str(layer.in_features) in repr(layer)

    mask = (torch.rand(4, 3) < 0.5).double()
    layer.edge_mask = mask
    for key in ("weight", "base_weight", "spline_scaler"):
        if key in parameters:
            before.get_parameter(key).data *= mask
    torch.testing.assert_close(layer(x), before(x), rtol=1e-5, atol=1e-5)

    for key in ("edge_mask", "_even_grid"):
        vars(layer).pop(key, None)
    layer.__class__ = own_class
    assert torch.equal(layer(x), expected)
    assert vars(layer).keys() == attributes.keys()


def test_a_converted_kan_moves_its_grid_without_a_change_of_function():
    torch.manual_seed(0)
    layer = KANLinear(3, 4, grid_eps=1.0)
    features = torch.empty(300, 3).uniform_(-0.99, 0.99)
    features[:2] = torch.tensor([[-0.99], [0.99]])
    expected = layer(features)
    own_class = type(layer)
    layer.__class__ = maskable_class(layer)
    layer.update_grid(features)
    torch.testing.assert_close(layer(features), expected, rtol=1e-3, atol=1e-3)
    vars(layer).pop("_even_grid", None)
    layer.__class__ = own_class
    torch.testing.assert_close(layer(features), expected, rtol=1e-3, atol=1e-3)


def test_the_package_efficient_kan_is_known():
    package = pytest.importorskip("efficient_kan")
    layer, x = package.KANLinear(3, 4), torch.randn(6, 3)
    expected = layer(x)
    layer.__class__ = maskable_class(layer)
    assert isinstance(layer, KANHead)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert maskable_class(package.KANLinear(3, 4, enable_standalone_scale_spline=False)) is None
