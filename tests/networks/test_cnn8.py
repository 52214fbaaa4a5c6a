import math

import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import CNN8


def test_number_of_parameters_with_a_linear_layer_is_the_papers():
    model = nn.Sequential(CNN8(), nn.Linear(256, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_639_794
    assert "1,639,794" in CNN8.__doc__


@pytest.mark.parametrize("channels", [1, 3])
def test_number_of_parameters_from_the_layers(channels):
    convolutions = [(channels, 64), (64, 64), (64, 128), (128, 128), (128, 196), (196, 196)]
    expected = sum(9 * before * after + after + 2 * after for before, after in convolutions)
    expected += 3136 * 256 + 256 + 2 * 256
    assert sum(parameter.numel() for parameter in CNN8(channels).parameters()) == expected


def test_order_of_the_layers():
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    expected = [*block, *block, "MaxPool2d"] * 3 + ["Flatten", "Linear", "LoneSampleBatchNorm1d", "ReLU"]
    assert [type(module).__name__ for module in CNN8().modules() if not list(module.children())] == expected


def test_features_are_rectified():
    features = CNN8()(torch.randn(4, 3, 32, 32))
    assert features.min() == 0
    assert features.max() > 0


def test_weights_start_uniform_in_the_bounds_of_kaiming_and_xavier():
    torch.manual_seed(0)
    for module in CNN8().modules():
        if isinstance(module, nn.Conv2d):
            bound = math.sqrt(6 / (9 * module.in_channels))
        elif isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (3136 + 256))
        else:
            continue
        largest = module.weight.abs().max().item()
        assert 0.99 * bound < largest <= bound
        assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_lone_training_sample_leaves_the_statistics_of_the_projection():
    backbone = CNN8()
    backbone(torch.randn(4, 3, 32, 32))
    norm = backbone.projection[2]
    mean, count = norm.running_mean.clone(), norm.num_batches_tracked.clone()
    features = backbone(torch.randn(1, 3, 32, 32))
    assert features.shape == (1, 256)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(norm.num_batches_tracked, count)


def test_state_dict_is_that_of_plain_batch_norm():
    backbone = CNN8()
    keys = list(backbone.state_dict())
    backbone.projection[2] = nn.BatchNorm1d(256)
    assert list(backbone.state_dict()) == keys


@pytest.mark.parametrize("size", [(28, 28), (33, 33), (32, 16)])
def test_refuses_images_of_another_size(size):
    with pytest.raises(NoisyLabelError, match=r"`images` to be 32 x 32 pixels: .*SmallCNN, but got \(\d+, \d+\)\.$"):
        CNN8()(torch.randn(2, 3, *size))


def test_refuses_bad_arguments():
    with pytest.raises(NoisyLabelError, match="`in_channels` to be an int of at least 1, but got 0"):
        CNN8(in_channels=0)
