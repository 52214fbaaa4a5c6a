from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import VGG19BN

WIDTHS = [2 * [64], 2 * [128], 4 * [256], 4 * [512], 4 * [512]]


@pytest.fixture(scope="module")
def backbone():
    with torch.device("meta"):
        return VGG19BN()


def test_number_of_parameters_from_the_layers(backbone):
    widths = [3, *(width for stage in WIDTHS for width in stage)]
    expected = sum(9 * before * after + 3 * after for before, after in pairwise(widths))
    expected += (25_088 + 1) * 4096 + (4096 + 1) * 4096
    assert sum(parameter.numel() for parameter in backbone.parameters()) == expected
    assert f"{expected:,} parameters" in VGG19BN.__doc__
    assert f"{expected + 40_970:,}" in VGG19BN.__doc__
    assert round((expected + 40_970) / 1e6, 1) == 139.6


def test_order_of_the_layers(backbone):
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    features = [name for stage in WIDTHS for name in [*(len(stage) * block), "MaxPool2d"]]
    expected = [*features, "AdaptiveAvgPool2d", *(2 * ["Linear", "ReLU", "Dropout"]), "Identity"]
    assert [type(module).__name__ for module in backbone.modules() if not list(module.children())] == expected


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (64, 100), (224, 224)])
def test_image_sizes(backbone, size):
    assert backbone.num_features == 4096
    assert backbone(torch.randn(2, 3, *size, device="meta")).shape == (2, 4096)


def test_maps_of_two_pixels_are_stretched_to_seven(backbone):
    corners = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    rows = torch.tensor([[1.0, 0.0], [1, 0], [1, 0], [0.5, 0.5], [0, 1], [0, 1], [0, 1]])
    torch.testing.assert_close(backbone.model.avgpool(corners[None, None])[0, 0], rows @ corners @ rows.T)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_dropout_is_an_argument_and_half_by_default(backbone, dropout):
    with torch.device("meta"):
        other = VGG19BN(dropout)
    assert [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5]
    assert [module.p for module in other.modules() if isinstance(module, nn.Dropout)] == [dropout, dropout]


def test_names_of_the_tensors_are_torchvisions(backbone):
    names = list(backbone.state_dict())
    assert names[0] == "model.features.0.weight"
    assert names[-2:] == ["model.classifier.3.weight", "model.classifier.3.bias"]
    assert len(names) == 16 * 7 + 4


@pytest.mark.parametrize("size", [(31, 64), (64, 31)])
def test_refuses_small_images(backbone, size):
    with pytest.raises(NoisyLabelError, match=r"`images` to be at least 32 x 32 pixels: resize, but got \("):
        backbone(torch.randn(2, 3, *size, device="meta"))


@pytest.mark.parametrize("dropout", [1.0, -0.1, float("nan")])
def test_refuses_bad_dropout(dropout):
    with pytest.raises(NoisyLabelError, match=r"`dropout` to be a float in \[0, 1\), but got"):
        VGG19BN(dropout)


@pytest.mark.slow
def test_a_training_batch_of_one_sample_of_64_pixels():
    torch.manual_seed(0)
    features = VGG19BN()(torch.randn(1, 3, 64, 64))
    features.square().sum().backward()
    assert features.shape == (1, 4096)
    assert features.isfinite().all()
    assert 0.5 < (features == 0).float().mean() < 1
