import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import HiddenLayerBackbone, LeNet, TorchvisionBackbone


def test_number_of_parameters_with_a_linear_layer_is_the_published():
    model = nn.Sequential(LeNet(), nn.Linear(84, 10))
    layers = [(6, 3 * 25), (16, 6 * 25), (120, 16 * 25), (84, 120), (10, 84)]
    expected = sum(outputs * (inputs + 1) for outputs, inputs in layers)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 62_006
    assert "62,006" in LeNet.__doc__
    assert f"{62_006 - 850:,}" in " ".join(LeNet.__doc__.split())


def test_features_are_those_of_the_published_layers():
    network, images = LeNet().double(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    tensors = iter(network.state_dict().values())
    maps = images
    for _ in range(2):
        maps = F.conv2d(maps, next(tensors), next(tensors)).clamp(min=0)
        maps = maps.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    features = maps.flatten(1)
    for _ in range(2):
        features = (features @ next(tensors).T + next(tensors)).clamp(min=0)
    assert next(tensors, None) is None
    torch.testing.assert_close(network(images), features)


def test_other_sizes_are_refused():
    with pytest.raises(NoisyLabelError, match="32 x 32 pixels"):
        LeNet()(torch.zeros(1, 3, 28, 28))


def test_a_hidden_layer_is_normalized_by_the_batch_and_starts_kaiming_normal():
    network = HiddenLayerBackbone(LeNet(), 2000)
    images = torch.randn(5, 3, 32, 32)
    linear = network.projection[0]
    mapped = network.backbone(images) @ linear.weight.T + linear.bias
    mapped = (mapped - mapped.mean(0)) / (mapped.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(network(images), mapped.clamp(min=0), rtol=1e-3, atol=1e-4)
    assert linear.weight.std().item() == pytest.approx((2 / 84) ** 0.5, rel=0.02)
    assert not linear.bias.any()
    with pytest.raises(NoisyLabelError, match="`width`"):
        HiddenLayerBackbone(LeNet(), 0)


def test_the_network_of_jo_src_on_clothing1m_has_its_parameters():
    with torch.device("meta"):
        network = nn.Sequential(HiddenLayerBackbone(TorchvisionBackbone("resnet18"), 1024), nn.Linear(1024, 14))
    resnet, hidden = 11_689_512 - 513_000, 512 * 1024 + 3 * 1024
    assert sum(parameter.numel() for parameter in network.parameters()) == resnet + hidden + 14 * 1025
