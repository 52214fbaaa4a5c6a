import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import CNN9

WIDTHS = [128, 128, 128, 256, 256, 256, 512, 256, 128]


def features_by_hand(tensors, images):
    """The published layers in evaluation, with the state dict's tensors in the order in which they stand there."""
    tensors = (tensor for tensor in tensors if tensor.is_floating_point())  # without the counts of batches
    maps = images
    for i in range(9):
        maps = F.conv2d(maps, next(tensors), next(tensors), padding=1 if i < 6 else 0)
        weight, bias, mean, variance = (next(tensors)[:, None, None] for _ in range(4))
        maps = (maps - mean) / (variance + 1e-5).sqrt() * weight + bias
        maps = torch.where(maps > 0, maps, 0.01 * maps)
        if i in (2, 5):
            maps = maps.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    assert next(tensors, None) is None
    return maps.mean(dim=(2, 3))


def test_number_of_parameters_with_a_linear_layer_is_the_published():
    model = nn.Sequential(CNN9(), nn.Linear(128, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_434_570
    assert "4,434,570" in CNN9.__doc__
    assert f"{4_434_570 - 1290:,} parameters" in CNN9.__doc__


@pytest.mark.parametrize("channels", [1, 4])
def test_number_of_parameters_from_the_layers(channels):
    expected = sum(9 * before * after + 3 * after for before, after in pairwise([channels, *WIDTHS]))
    assert sum(parameter.numel() for parameter in CNN9(channels).parameters()) == expected


@pytest.mark.parametrize("size", [(32, 32), (28, 36)])
def test_features_in_evaluation_are_those_of_the_published_layers(size):
    torch.manual_seed(0)
    backbone = CNN9().double()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.7
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    backbone(images)
    features = backbone.eval()(images)
    assert features.min() < 0 < features.max()
    torch.testing.assert_close(features, features_by_hand(backbone.state_dict().values(), images))


def test_whole_maps_are_dropped_after_each_pool_in_training_only():
    torch.manual_seed(0)
    backbone, dropped = CNN9(), []
    for module in backbone.layers:
        if isinstance(module, nn.Dropout2d):
            module.register_forward_hook(lambda _, before, after: dropped.append((before[0].clone(), after.clone())))
    backbone(torch.randn(4, 3, 32, 32))
    assert [after.shape[1:] for _, after in dropped] == [(128, 16, 16), (256, 8, 8)]
    for before, after in dropped:
        gone = (after == 0).all(dim=3).all(dim=2)
        assert gone.float().mean().item() == pytest.approx(0.25, abs=0.06)
        torch.testing.assert_close(after[~gone], before[~gone] / 0.75)
    dropped.clear()
    backbone.eval()(torch.randn(1, 3, 32, 32))
    assert all(torch.equal(before, after) for before, after in dropped)
    assert len(dropped) == 2


def test_dropout_is_an_argument():
    assert [module.p for module in CNN9(dropout=0.5).modules() if isinstance(module, nn.Dropout2d)] == [0.5, 0.5]


def test_convolutions_start_as_torchs():
    torch.manual_seed(0)
    for module in CNN9().modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(9 * module.in_channels)
            assert 0.98 * bound < module.weight.abs().max().item() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_names_of_the_tensors_stay():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    starts = (0, 3, 6, 11, 14, 17, 22, 25, 28)
    expected = []
    for i in starts:
        expected += [f"layers.{i}.weight", f"layers.{i}.bias", *(f"layers.{i + 1}.{name}" for name in norm)]
    assert list(CNN9().state_dict()) == expected


@pytest.mark.parametrize(("size", "batch_size"), [((28, 28), 2), ((32, 28), 1), ((32, 32), 1), ((48, 64), 2)])
def test_image_sizes_in_training(size, batch_size):
    with torch.device("meta"):
        assert CNN9(1)(torch.randn(batch_size, 1, *size)).shape == (batch_size, 128)


@pytest.mark.parametrize("size", [(27, 32), (32, 27), (8, 8)])
def test_refuses_small_images(size):
    with pytest.raises(NoisyLabelError, match=r"`images` to be at least 28 x 28 pixels: .*SmallCNN, but got \(\d"):
        CNN9()(torch.randn(2, 3, *size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "`in_channels` to be an int of at least 1, but got 0"),
        ({"dropout": 1.0}, r"`dropout` to be a float in \[0, 1\), but got 1.0"),
        ({"dropout": -0.1}, r"`dropout` to be a float in \[0, 1\), but got -0.1"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(NoisyLabelError, match=message):
        CNN9(**arguments)
