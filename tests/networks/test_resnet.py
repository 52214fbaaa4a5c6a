import math

import pytest
import torch
import torchvision
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import CIFARResNet, ResNet18, ResNet34


def number_of_parameters(blocks, channels, num_classes):
    """From the layers: 3x3 convolutions without bias, two parameters a channel in each batch normalization."""
    total = 9 * channels * 64 + 2 * 64
    before = 64
    for count, width in zip(blocks, (64, 128, 256, 512), strict=True):
        for _ in range(count):
            total += 9 * before * width + 2 * width + 9 * width * width + 2 * width
            total += before * width + 2 * width if before != width else 0
            before = width
    return total + 512 * num_classes + num_classes


@pytest.mark.parametrize(
    ("network", "blocks", "published"), [(ResNet18, (2, 2, 2, 2), 11_173_962), (ResNet34, (3, 4, 6, 3), 21_282_122)]
)
def test_number_of_parameters(network, blocks, published):
    model = nn.Sequential(network(), nn.Linear(512, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert number_of_parameters(blocks, 3, 10) == published
    assert f"{published:,}" in network.__doc__
    assert f"{published - 5130:,} parameters" in network.__doc__


def test_number_of_parameters_with_other_blocks_and_channels():
    model = nn.Sequential(CIFARResNet([1, 2, 1, 1], in_channels=2), nn.Linear(512, 4))
    assert sum(parameter.numel() for parameter in model.parameters()) == number_of_parameters([1, 2, 1, 1], 2, 4)


@pytest.mark.parametrize(("options", "side"), [({}, 32), ({"max_pool": True}, 64)])
def test_stem_has_stride_one_and_pooling_if_asked_for(options, side):
    backbone, sizes = ResNet18(**options).eval(), {}
    for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        module = backbone.get_submodule(name)
        module.register_forward_hook(lambda _, __, output, name=name: sizes.update({name: tuple(output.shape[1:])}))
    backbone(torch.randn(1, 3, side, side))
    assert sizes == {
        "conv1": (64, side, side),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    }
    assert backbone.conv1.kernel_size == (3, 3)


def test_features_are_the_average_of_the_last_map():
    backbone, maps = ResNet18().eval(), []
    backbone.layer4.register_forward_hook(lambda _, __, output: maps.append(output))
    features = backbone(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(features, maps[0].mean(dim=(2, 3)))


@pytest.mark.parametrize(("size", "batch_size"), [(9, 1), (8, 2), (28, 1), (40, 2)])
def test_image_sizes_in_training(size, batch_size):
    features = CIFARResNet([1, 1, 1, 1])(torch.randn(batch_size, 3, size, size))
    assert features.shape == (batch_size, 512)
    assert features.isfinite().all()


def test_stem_starts_kaiming_normal_over_fan_out():
    torch.manual_seed(0)
    weight = CIFARResNet([1, 1, 1, 1], in_channels=16).conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    assert weight.abs().max() > 3 * weight.std()


def test_state_dict_is_torchvisions_but_for_the_stem_and_the_classifier():
    theirs = torchvision.models.resnet34().state_dict()
    ours = ResNet34().state_dict()
    assert list(ours) == [name for name in theirs if not name.startswith("fc.")]
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["conv1.weight"]


@pytest.mark.parametrize(("network", "name"), [(ResNet18, "resnet18"), (ResNet34, "resnet34")])
def test_pretrained_weights_are_everywhere_but_in_the_stem(monkeypatch, network, name):
    trained = {key: torch.full_like(value, 7) for key, value in torchvision.models.get_model(name).state_dict().items()}
    asked = []
    address = "torchvision.models._api.load_state_dict_from_url"
    monkeypatch.setattr(address, lambda url, *_, **__: asked.append(url) or trained)
    taken = {key: bool((value == 7).all()) for key, value in network(2, weights="IMAGENET1K_V1").state_dict().items()}
    assert {key.partition(".")[0] for key in taken if not taken[key]} == {"conv1", "bn1"}
    assert not any(taken[key] for key in taken if key.startswith(("conv1.", "bn1.")))
    assert f"/{name}-" in asked[0]
    with pytest.raises(
        NoisyLabelError, match=f"`weights` to be None or one of IMAGENET1K_V1, DEFAULT for {name}, but got 'XYZ'"
    ):
        network(weights="XYZ")


@pytest.mark.parametrize("blocks", [(2, 2, 2), (2, 2, 2, 2, 2), (2, 0, 2, 2), ()])
def test_refuses_bad_blocks(blocks):
    with pytest.raises(NoisyLabelError, match="`blocks` to be four positive ints, but got"):
        CIFARResNet(blocks)


@pytest.mark.parametrize("network", [ResNet18, ResNet34])
def test_refuses_bad_channels(network):
    with pytest.raises(NoisyLabelError, match="`in_channels` to be an int of at least 1, but got -1"):
        network(in_channels=-1)
