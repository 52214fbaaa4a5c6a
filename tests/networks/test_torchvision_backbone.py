import warnings

import pytest
import torch
import torchvision
from jsonargparse import auto_cli
from torch import nn
from torchvision.models import get_model, list_models

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import TorchvisionBackbone

CLASSIFIERS = {  # name: (path of the classifier, its input size, image size)
    "resnet18": ("fc", 512, 64),
    "mobilenet_v3_small": ("classifier.3", 1024, 64),
    "shufflenet_v2_x0_5": ("fc", 1024, 64),
}
LARGE_CLASSIFIERS = {
    "alexnet": ("classifier.6", 4096, 224),
    "convnext_tiny": ("classifier.2", 768, 64),
    "densenet121": ("classifier", 1024, 64),
    "efficientnet_b0": ("classifier.1", 1280, 64),
    "googlenet": ("fc", 1024, 64),
    "inception_v3": ("fc", 2048, 299),
    "maxvit_t": ("classifier.5", 512, 224),
    "mnasnet0_5": ("classifier.1", 1280, 64),
    "regnet_y_400mf": ("fc", 440, 64),
    "resnext50_32x4d": ("fc", 2048, 64),
    "swin_t": ("head", 768, 64),
    "vgg11_bn": ("classifier.6", 4096, 64),
    "vit_b_16": ("heads.head", 768, 224),
}
ALL_CLASSIFIERS = [
    *[pytest.param(name, *rest, id=name) for name, rest in CLASSIFIERS.items()],
    *[pytest.param(name, *rest, id=name, marks=pytest.mark.slow) for name, rest in LARGE_CLASSIFIERS.items()],
]


@pytest.mark.parametrize(("name", "path", "num_features", "size"), ALL_CLASSIFIERS)
def test_the_classifier_on_the_features_gives_the_logits_of_the_original(name, path, num_features, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet and Inception v3, about their weights at start
        original = get_model(name)
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the initial statistics let the signal vanish
    images = torch.randn(2, 3, size, size)
    original.train()(images)
    original.eval()
    classifier = original.get_submodule(path)
    nn.init.normal_(classifier.weight)  # a vision transformer's starts at zero
    state = original.state_dict()
    for key in [key for key in state if key.startswith((f"{path}.", "aux", "AuxLogits"))]:
        del state[key]
    backbone = TorchvisionBackbone(name)
    backbone.model.load_state_dict(state, strict=True)
    features = backbone.eval()(images)
    assert backbone.num_features == num_features
    assert features.shape == (2, num_features)
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    torch.testing.assert_close(classifier(features), original(images))


# RegNet rounds its widths by way of tensors, for which the meta device has no values
ON_META_DEVICE = [name for name in list_models(module=torchvision.models) if not name.startswith("regnet")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_META_DEVICE)
def test_every_classification_model_maps_to_its_features_or_is_refused_by_name(name):
    with torch.device("meta"):
        if name.startswith("squeezenet"):
            with pytest.raises(NoisyLabelError, match=name):
                TorchvisionBackbone(name)
            return
        backbone = TorchvisionBackbone(name)
        features = backbone.eval()(torch.randn(2, 3, 224, 224))
    assert features.shape == (2, backbone.num_features)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_removed_without_a_warning(name):
    with torch.device("meta"):
        backbone = TorchvisionBackbone(name)
        features = backbone.train()(torch.randn(2, 3, 299, 299))
    assert features.shape == (2, backbone.num_features)
    assert not [name for name, _ in backbone.named_parameters() if "aux" in name.lower()]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pretrained_networks_with_auxiliary_heads(name, monkeypatch):
    with torch.device("meta"):
        arguments = {"transform_input": True, "init_weights": False}
        weights = get_model(name, **arguments).state_dict()
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: weights)
        backbone = TorchvisionBackbone(name, weights="IMAGENET1K_V1")
    assert backbone.model.transform_input
    assert not [name for name, _ in backbone.named_parameters() if "aux" in name.lower()]


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"])
def test_weights_by_name_are_loaded(weights, monkeypatch):
    torch.manual_seed(1)
    pretrained, addresses = get_model("resnet18").state_dict(), []

    def download(url, *_, **__):
        addresses.append(url)
        return pretrained

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    backbone = TorchvisionBackbone("resnet18", weights=weights)
    assert addresses == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, pretrained[key])


def test_pretrained_resnet50_of_clothing1m(monkeypatch):
    """The weights are those of 2015, which the papers used, and not torchvision's newer ones."""
    with torch.device("meta"):
        pretrained, addresses = get_model("resnet50").state_dict(), []

        def download(url, *_, **__):
            addresses.append(url)
            return pretrained

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
        backbone = TorchvisionBackbone("resnet50", weights="IMAGENET1K_V1")
        model = nn.Sequential(backbone, nn.Linear(backbone.num_features, 14))
        assert model(torch.randn(2, 3, 224, 224)).shape == (2, 14)
    assert len(addresses) == 1
    assert addresses[0].endswith("resnet50-0676ba61.pth")
    assert backbone.num_features == 2048
    expected = 25_557_032 - 1000 * 2049  # the documented size of torchvision's network
    assert torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["num_params"] == 25_557_032
    assert sum(parameter.numel() for parameter in backbone.parameters()) == expected
    assert f"{expected:,} parameters" in TorchvisionBackbone.__doc__
    assert f"{expected + 14 * 2049:,}" in TorchvisionBackbone.__doc__


def test_model_arguments_reach_the_model():
    with torch.device("meta"):
        backbone = TorchvisionBackbone("vgg11_bn", model_arguments={"dropout": 0.2})
    assert [module.p for module in backbone.modules() if isinstance(module, nn.Dropout)] == [0.2, 0.2]


def test_can_be_written_in_yaml(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "backbone:\n"
        "  class_path: lightning_noisy.networks.TorchvisionBackbone\n"
        "  init_args:\n"
        "    name: mobilenet_v3_small\n"
        "    weights: null\n"
        "    model_arguments: {dropout: 0.5}\n"
    )

    def build(backbone: nn.Module):
        return backbone

    backbone = auto_cli(build, args=[f"--config={config}"], as_positional=False)
    assert isinstance(backbone, TorchvisionBackbone)
    assert backbone.model.classifier[2].p == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, r"`name` to be .*\(torchvision.models.list_models\(.*\)\), but got 'resnet19'\.$"),
        ({"name": "fcn_resnet50"}, r"`name` to be a classification model .*, but got 'fcn_resnet50'\.$"),
        ({"name": "squeezenet1_1"}, "linear classifier, but got 'squeezenet1_1', which has none"),
        (
            {"name": "resnet18", "weights": "BEST"},
            r"`weights` to be None or one of IMAGENET1K_V1, DEFAULT for resnet18, but got 'BEST'\.$",
        ),
        (
            {"name": "resnet18", "model_arguments": {"num_classes": 10}},
            r"`model_arguments` to be without 'num_classes', which belongs to the head, but got \{'num_classes': 10\}",
        ),
        (
            {"name": "resnet18", "model_arguments": {"widht": 2}},
            r"`model_arguments` to be keyword arguments of torchvision's resnet18, but got \{'widht': 2\}: .*'widht'",
        ),
    ],
)
def test_refuses_bad_arguments_in_one_line(arguments, message):
    with torch.device("meta"), pytest.raises(NoisyLabelError, match=message) as error:
        TorchvisionBackbone(**arguments)
    assert "\n" not in str(error.value)
