import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import CNN7, CNN8

CONVOLUTIONS = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 196), (196, 16)]


def randomize(module):
    """Random affine parameters and statistics of batch normalization, as after training."""
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            nn.init.normal_(tensor, std=0.2)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


def features_by_hand(tensors, images, with_hidden):
    """The published layers, with the state dict's tensors in the order in which they stand there."""
    tensors = (tensor for tensor in tensors if tensor.is_floating_point())  # without the counts of batches
    maps = images
    for i in range(6):
        maps = F.conv2d(maps, next(tensors), next(tensors), padding=1)
        weight, bias, mean, variance = (next(tensors)[:, None, None] for _ in range(4))
        maps = ((maps - mean) / (variance + 1e-5).sqrt() * weight + bias).clamp(min=0)
        if i % 2:
            maps = maps.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    features = maps.flatten(1)
    if with_hidden:
        features = features @ next(tensors).T + next(tensors)
        weight, bias, mean, variance = (next(tensors) for _ in range(4))
        features = ((features - mean) / (variance + 1e-5).sqrt() * weight + bias).clamp(min=0)
    assert next(tensors, None) is None
    return features


@pytest.mark.parametrize(("hidden", "width", "published"), [(None, 256, 541_280), (512, 512, 699_488)])
def test_number_of_parameters_with_a_linear_layer_is_the_published(hidden, width, published):
    backbone = CNN7(hidden=hidden)
    assert backbone.num_features == width
    model = nn.Sequential(backbone, nn.Linear(width, 100))
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert f"{published:,}" in CNN7.__doc__
    assert f"{published - 100 * (width + 1):,} parameters" in CNN7.__doc__


@pytest.mark.parametrize(("channels", "hidden"), [(1, None), (3, 7)])
def test_number_of_parameters_from_the_layers(channels, hidden):
    expected = sum(9 * before * after + 3 * after for before, after in [(channels, 64), *CONVOLUTIONS[1:]])
    expected += 257 * hidden + 2 * hidden if hidden else 0
    assert sum(parameter.numel() for parameter in CNN7(channels, hidden).parameters()) == expected


@pytest.mark.parametrize("hidden", [None, 512])
def test_features_are_those_of_the_published_layers(hidden):
    torch.manual_seed(0)
    backbone = randomize(CNN7(hidden=hidden).double())
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    by_hand = features_by_hand(backbone.state_dict().values(), images, bool(hidden))
    features = backbone(images)
    assert 0.05 < (features == 0).double().mean() < 0.95
    torch.testing.assert_close(features, by_hand)


def test_convolutions_start_as_torchs_and_the_hidden_layer_kaiming_normal():
    torch.manual_seed(0)
    backbone = CNN7(hidden=512)
    for module in backbone.convolutions:
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(9 * module.in_channels)
            assert 0.98 * bound < module.weight.abs().max().item() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert 0 < module.bias.abs().max().item() <= bound
    linear = backbone.projection[0]
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert linear.weight.abs().max() > 3 * linear.weight.std()
    assert not linear.bias.any()


def test_a_lone_training_sample_leaves_the_statistics_of_the_hidden_layer():
    backbone = CNN7(hidden=8)
    backbone(torch.randn(4, 3, 32, 32))
    mean = backbone.projection[1].running_mean.clone()
    assert backbone(torch.randn(1, 3, 32, 32)).shape == (1, 8)
    assert torch.equal(backbone.projection[1].running_mean, mean)


@pytest.mark.parametrize(
    ("network", "convolutions", "projection"),
    [
        (lambda: CNN7(hidden=8), [f"convolutions.{i}" for i in (0, 1, 3, 4, 7, 8, 10, 11, 14, 15, 17, 18)], (0, 1)),
        (CNN8, [f"convolutions.{stage}.{i}" for stage in range(3) for i in (0, 1, 3, 4)], (1, 2)),
    ],
)
def test_names_of_the_tensors_stay(network, convolutions, projection):
    layers = [*convolutions, *(f"projection.{i}" for i in projection)]
    linear, norm = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = [f"{layer}.{name}" for i, layer in enumerate(layers) for name in (norm if i % 2 else linear)]
    assert list(network().state_dict()) == expected


@pytest.mark.parametrize("size", [(28, 28), (33, 33), (32, 16), (40, 40)])
def test_refuses_images_of_another_size(size):
    with pytest.raises(NoisyLabelError, match=r"`images` to be 32 x 32 pixels: .*SmallCNN, but got \(\d+, \d+\)\.$"):
        CNN7()(torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "`in_channels` to be an int of at least 1, but got 0"),
        ({"hidden": 0}, "`hidden` to be an int of at least 1, or None, but got 0"),
        ({"hidden": -1}, "`hidden` to be an int of at least 1, or None, but got -1"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        CNN7(**arguments)
