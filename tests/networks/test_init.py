from copy import deepcopy

import pytest
import torch
from jsonargparse import auto_cli
from torch import nn

from lightning_noisy import NoisyLabelError, networks
from lightning_noisy.networks import (
    CNN7,
    CNN8,
    CNN9,
    MLP,
    CIFARResNet,
    HiddenLayerBackbone,
    LeNet,
    PreActResNet,
    ProjectedBackbone,
    ResNet18,
    ResNet34,
    SmallCNN,
    TorchvisionBackbone,
    WideResNet,
)

BACKBONES = {
    "small_cnn": SmallCNN,
    "small_cnn_rgb": lambda: SmallCNN(in_channels=3, width=4, num_features=7),
    "cnn7": CNN7,
    "cnn7_hidden": lambda: CNN7(hidden=512),
    "cnn7_gray": lambda: CNN7(in_channels=1, hidden=20),
    "cnn8": CNN8,
    "cnn8_gray": lambda: CNN8(in_channels=1),
    "cnn9": CNN9,
    "cnn9_gray": lambda: CNN9(in_channels=1),
    "lenet": LeNet,
    "lenet_gray": lambda: LeNet(in_channels=1),
    "hidden_layer": lambda: HiddenLayerBackbone(LeNet(), 20),
    "preact_resnet10": lambda: PreActResNet([1, 1, 1, 1]),
    "preact_resnet10_he": lambda: PreActResNet([1, 1, 1, 1], variant="he"),
    "preact_resnet_gray": lambda: PreActResNet([1, 2], [4, 6], stem_width=5, in_channels=1),
    "wide_resnet": lambda: WideResNet(10, 2),
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet10_gray": lambda: CIFARResNet([1, 1, 1, 1], in_channels=1),
    "mlp": lambda: MLP(6, (8, 7)),
    "mlp_norm": lambda: MLP(6, (8, 7), batch_norm=True),
    "torchvision": lambda: TorchvisionBackbone("mobilenet_v3_small"),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    torch.manual_seed(0)
    backbone = BACKBONES[request.param]()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0  # the first batch sets the statistics: the initial ones let the signal vanish
    return backbone


def images(backbone, batch_size):
    if isinstance(backbone, MLP):
        return torch.randn(batch_size, backbone.in_features)
    convolution = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    size = 64 if isinstance(backbone, TorchvisionBackbone) else 32
    return torch.randn(batch_size, convolution.in_channels, size, size)


@pytest.mark.parametrize("around", [lambda b: HiddenLayerBackbone(b, 4), lambda b: ProjectedBackbone(b, 4)])
def test_a_backbone_that_does_not_say_its_width(around):
    with pytest.raises(NoisyLabelError, match=r"^Flatten has no `num_features`: set it to the width D"):
        around(nn.Flatten())


def test_all_names_exist_and_no_other_class_is_left_out():
    assert sorted(networks.__all__) == sorted(
        name for name, value in vars(networks).items() if isinstance(value, type) and issubclass(value, nn.Module)
    )


@pytest.mark.parametrize("training", [True, False])
def test_features_have_num_features_columns(backbone, training):
    features = backbone.train(training)(images(backbone, 3))
    assert type(backbone.num_features) is int
    assert features.shape == (3, backbone.num_features)
    assert features.dtype == torch.float32


def test_a_sample_alone_in_eval_mode_has_its_features_of_the_batch(backbone):
    batch = images(backbone, 4)
    backbone(batch)
    backbone.eval()
    together = backbone(batch)
    assert not torch.allclose(together[1], together[2], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(backbone(batch[1:2]), together[1:2], rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_parameter(backbone):
    batch = images(backbone, 4)
    backbone(batch)
    backbone.eval()  # in training, batch normalization cancels the bias in front of it
    features = backbone(batch)
    (features * torch.randn_like(features)).sum().backward()
    missing = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    zero = [name for name, parameter in backbone.named_parameters() if not parameter.grad.any()]
    assert missing == []
    assert zero == []


def test_state_dict_loads_strictly_and_carries_the_features(backbone, request):
    batch = images(backbone, 2)
    backbone(batch)
    copy = BACKBONES[request.node.callspec.params["backbone"]]()
    assert not torch.equal(copy.eval()(batch), backbone.eval()(batch))
    copy.load_state_dict(backbone.state_dict(), strict=True)
    assert torch.equal(copy(batch), backbone(batch))


def test_a_copy_is_independent(backbone):
    batch = images(backbone, 2)
    backbone(batch)
    backbone.eval()
    copy, features = deepcopy(backbone), backbone(batch)
    assert torch.equal(copy(batch), features)
    with torch.no_grad():
        for tensor in [*copy.parameters(), *copy.buffers()]:
            tensor.zero_()
    assert torch.equal(backbone(batch), features)
    assert not copy(batch).any()


@pytest.mark.parametrize(
    ("arguments", "network", "num_features"),
    [
        (["CNN7"], CNN7, 256),
        (["CNN7", "--backbone.hidden=512"], CNN7, 512),
        (["LeNet"], LeNet, 84),
        (["HiddenLayerBackbone", "--backbone.backbone=CNN7", "--backbone.width=5"], HiddenLayerBackbone, 5),
        (["CNN9", "--backbone.dropout=0.5"], CNN9, 128),
        (["PreActResNet18"], networks.PreActResNet18, 512),
        (["PreActResNet34", "--backbone.variant=he"], networks.PreActResNet34, 512),
        (["PreActResNet", "--backbone.blocks=[1, 1]", "--backbone.widths=[4, 6]"], PreActResNet, 6),
        (["WideResNet", "--backbone.depth=10", "--backbone.width=2"], WideResNet, 128),
        (["VGG19BN", "--backbone.dropout=0.2"], networks.VGG19BN, 4096),
    ],
)
def test_short_names_resolve_on_the_command_line(arguments, network, num_features):
    def build(backbone: nn.Module):
        return backbone

    first, *rest = arguments
    with torch.device("meta"):
        backbone = auto_cli(build, args=[f"--backbone={first}", *rest], as_positional=False)
    assert type(backbone) is network
    assert backbone.num_features == num_features


LONE_SAMPLES = ["small_cnn", "cnn7_hidden", "cnn8", "cnn9", "preact_resnet10", "preact_resnet10_he", "wide_resnet"]
LONE_SAMPLES += ["lenet", "hidden_layer", "resnet18", "mlp", "mlp_norm"]


@pytest.mark.parametrize("name", LONE_SAMPLES)
def test_a_training_batch_of_one_sample(name):
    backbone = BACKBONES[name]()
    features = backbone(images(backbone, 1))
    features.square().sum().backward()
    assert features.shape == (1, backbone.num_features)
    assert features.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())
