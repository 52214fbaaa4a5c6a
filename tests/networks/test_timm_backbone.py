import configparser
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from jsonargparse import auto_cli
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import TimmBackbone

with_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, width)
        self.head_hidden_size = width

    def forward(self, images):
        return self.layer(images.flatten(1))


class Timm:
    """What the backbone calls, without timm."""

    def __init__(self, make):
        self.make = make
        self.calls = []

    def is_model(self, name):
        return name.split(".")[0] == "known"

    def create_model(self, name, **arguments):
        self.calls.append((name, arguments))
        return self.make(**arguments)


@pytest.fixture
def timm(monkeypatch):
    timm = Timm(lambda num_classes, pretrained, width=5: Model(width))
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


def test_the_model_is_made_without_a_classifier(timm):
    backbone = TimmBackbone("known")
    assert timm.calls == [("known", {"pretrained": False, "num_classes": 0})]
    assert backbone.num_features == 5
    assert list(backbone.state_dict()) == ["model.layer.weight", "model.layer.bias"]
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(backbone(images), backbone.model(images))


def test_arguments_reach_timm(timm):
    backbone = TimmBackbone("known.tag", pretrained=True, model_arguments={"width": 7})
    assert timm.calls == [("known.tag", {"pretrained": True, "num_classes": 0, "width": 7})]
    assert backbone.num_features == 7


def test_can_be_made_on_the_command_line_by_its_short_name(timm):
    def build(backbone: nn.Module):
        return backbone

    arguments = ["--backbone=TimmBackbone", "--backbone.name=known", "--backbone.model_arguments={width: 3}"]
    backbone = auto_cli(build, args=arguments, as_positional=False)
    assert isinstance(backbone, TimmBackbone)
    assert backbone.num_features == 3


def raising(error):
    def make(**_):
        raise error

    return make


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, {"name": "other"}, r"`name` to be a model of timm \(timm.list_models\(\)\), but got 'other'\.$"),
        (
            None,
            {"name": "known", "model_arguments": {"num_classes": 10}},
            r"`model_arguments` to be without 'num_classes', which belongs to the head, but got \{'num_classes': 10\}",
        ),
        (
            raising(RuntimeError("No weights\n  for known")),
            {"name": "known", "pretrained": True},
            r"timm cannot make 'known' with pretrained=True and `model_arguments` \{\}: No weights for known$",
        ),
        (raising(TypeError("odd")), {"name": "known", "model_arguments": {"widht": 2}}, r"\{'widht': 2\}: odd$"),
        (raising(ValueError("odd")), {"name": "known"}, "timm cannot make 'known' .*: odd$"),
        (lambda **_: nn.Linear(2, 2), {"name": "known"}, "timm's known .* has no `head_hidden_size`.*: choose another"),
    ],
)
def test_refuses_in_one_line(timm, make, arguments, message):
    timm.make = make or timm.make
    with pytest.raises(NoisyLabelError, match=message) as error:
        TimmBackbone(**arguments)
    assert "\n" not in str(error.value)


def test_says_how_to_install_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NoisyLabelError, match=r": pip install lightning-noisy\[timm\]$") as error:
        TimmBackbone("resnet18")
    assert "needs timm" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", ["import what_is_missing", "from torch import what_is_missing"])
def test_names_what_timm_itself_lacks(line, monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(NoisyLabelError, match=r"what_is_missing.*: pip install lightning-noisy\[timm\]$"):
        TimmBackbone("resnet18")


def test_the_extra_exists():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert re.fullmatch(r"\n(#.*\n)*timm>=[\d.]+", setup["options.extras_require"]["timm"])


CLASSIFIERS = {  # name: size of the features, image size
    "resnet18": (512, 64),
    "mobilenetv3_small_050": (1024, 64),  # the last map has 288 channels
    "vit_tiny_patch16_224": (192, 224),
    "convnext_atto": (320, 64),
    "resnet10t.c3_in1k": (512, 64),
}


@with_timm
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifier_on_the_features_gives_the_logits_of_the_original(name):
    import timm

    width, size = CLASSIFIERS[name]
    torch.manual_seed(0)
    original = timm.create_model(name)
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the initial statistics let the signal vanish
    images = torch.randn(2, 3, size, size)
    original.train()(images)
    original.eval()
    classifier = original.get_classifier()
    nn.init.normal_(classifier.weight)
    backbone = TimmBackbone(name)
    ours = backbone.model.state_dict()
    theirs = original.state_dict()
    backbone.model.load_state_dict({key: theirs[key] for key in ours}, strict=True)
    assert sum(value.numel() for key, value in theirs.items() if key not in ours) == 1000 * (width + 1)
    features = backbone.eval()(images)
    assert backbone.num_features == width
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    torch.testing.assert_close(classifier(features), original(images))


def number_of_parameters_of_inception_resnet_v2():
    """From the layers: convolutions (in, out, height x width of the kernel), those with a bias apart."""
    stem = [(3, 32, 9), (32, 32, 9), (32, 64, 9), (64, 80, 1), (80, 192, 9)]
    mixed_5b = [(192, 96, 1), (192, 48, 1), (48, 64, 25), (192, 64, 1), (64, 96, 9), (96, 96, 9), (192, 64, 1)]
    block35 = [(320, 32, 1), (320, 32, 1), (32, 32, 9), (320, 32, 1), (32, 48, 9), (48, 64, 9)]
    mixed_6a = [(320, 384, 9), (320, 256, 1), (256, 256, 9), (256, 384, 9)]
    block17 = [(1088, 192, 1), (1088, 128, 1), (128, 160, 7), (160, 192, 7)]
    mixed_7a = [(1088, 256, 1), (256, 384, 9), (1088, 256, 1), (256, 288, 9), (1088, 256, 1), (256, 288, 9)]
    mixed_7a += [(288, 320, 9)]
    block8 = [(2080, 192, 1), (2080, 192, 1), (192, 224, 3), (224, 256, 3)]
    normalized = [*stem, *mixed_5b, *10 * block35, *mixed_6a, *20 * block17, *mixed_7a, *10 * block8, (2080, 1536, 1)]
    biased = [*10 * [(128, 320)], *20 * [(384, 1088)], *10 * [(448, 2080)]]
    return sum(a * b * k + 2 * b for a, b, k in normalized) + sum(a * b + b for a, b in biased)


def test_number_of_parameters_of_inception_resnet_v2_in_the_docstring():
    expected = number_of_parameters_of_inception_resnet_v2()
    assert f"{expected:,} parameters" in TimmBackbone.__doc__
    assert f"{expected + 50 * 1537:,}" in TimmBackbone.__doc__


@with_timm
def test_inception_resnet_v2():
    with torch.device("meta"):
        backbone = TimmBackbone("inception_resnet_v2")
        for size in (224, 227, 299):
            assert backbone.eval()(torch.randn(2, 3, size, size)).shape == (2, 1536)
    assert backbone.num_features == 1536
    assert sum(p.numel() for p in backbone.parameters()) == number_of_parameters_of_inception_resnet_v2()
    scales = [module.scale for module in backbone.modules() if hasattr(module, "scale")]
    assert scales == [*10 * [0.17], *20 * [0.10], *9 * [0.20], 1.0]
    assert {module.eps for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@with_timm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, r"`name` to be a model of timm \(timm.list_models\(\)\), but got 'resnet19'\.$"),
        ({"name": "resnet18.none"}, "timm cannot make 'resnet18.none' .*none"),
        ({"name": "resnet18", "model_arguments": {"widht": 2}}, "timm cannot make 'resnet18' .*'widht'"),
        ({"name": "resnet18", "model_arguments": {"features_only": True}}, "has no `head_hidden_size`"),
    ],
)
def test_refuses_what_timm_refuses_in_one_line(arguments, message):
    with torch.device("meta"), pytest.raises(NoisyLabelError, match=message) as error:
        TimmBackbone(**arguments)
    assert "\n" not in str(error.value)
