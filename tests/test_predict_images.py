"""``predict --images``: from files to named classes, without the data that the run was trained on."""

import csv
import os
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_noisy.cli import run
from lightning_noisy.data import CIFAR10DataModule, FashionMNISTDataModule, UnlabeledImages
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import isolate, needs_command_line, quiet, write_image

pytestmark = needs_command_line
COLORS = {"=blue": 0, 'a "green", dark': 120, "red\nbright": 255}
HOSTILE = ["-1.png", 'c,"d".png', "deep/a\nb.jpg", os.fsdecode(b"deep/\xff.png")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that tells three colors apart, whose training folder is gone."""
    root = tmp_path_factory.mktemp("trained")
    for name, number in COLORS.items():
        for i in range(8):
            write_image(root / "photos" / name / f"{i}.png", number)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, root)
        quiet("fit", write_config(root), "--trainer.max_epochs", 6)
    shutil.rmtree(root / "photos")
    return root


def write_config(root):
    config = {
        "model": {
            "class_path": "NoisyLabelModule",
            "init_args": {
                "backbone": {"class_path": "SmallCNN", "init_args": {"in_channels": 3, "width": 8, "num_features": 8}},
                "head": "LinearHead",
                "loss": "CrossEntropyLoss",
                "num_classes": 3,
                "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.02}},
            },
        },
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"root": "photos", "image_size": 8, "resize": 8, "batch_size": 8, "num_workers": 0},
        },
    }
    (root / "run.yaml").write_text(yaml.safe_dump(config))
    return root / "run.yaml"


@pytest.fixture
def predicting(trained, tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    folder = next(trained.rglob("config.yaml")).parent
    checkpoint = next(folder.rglob("*.ckpt"))

    def predict(*arguments):
        monkeypatch.setattr(
            "sys.argv", ["lightning-noisy", "predict", "--config", str(folder / "config.yaml"), *arguments]
        )
        status = 0
        try:
            run()
        except SystemExit as stop:
            status = stop.code
        return status

    predict.checkpoint = str(checkpoint)
    return predict


def rows(folder):
    (found,) = folder.rglob("predictions.csv")
    with found.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_nested_folder_of_hostile_names(predicting, tmp_path):
    for name in HOSTILE:
        write_image(tmp_path / "new" / name, 255, size=(40, 20))
    Image.new("CMYK", (9, 50), (255, 0, 0, 0)).save(tmp_path / "new" / "cmyk.jpg")
    Image.new("L", (300, 200), 0).save(tmp_path / "new" / "gray.png")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    (tmp_path / "new" / "notes.txt").write_text("passed over")
    assert predicting("--ckpt_path", predicting.checkpoint, "--images", "new") == 3
    (archive,) = tmp_path.rglob("predictions.npz")
    with np.load(archive, allow_pickle=False) as file:
        found = dict(zip(file["path"].tolist(), file["predicted"].tolist(), strict=True))
        assert file["class_names"].tolist() == list(COLORS)
        assert file["predicted"].tolist() == [list(COLORS)[i] for i in file["probabilities"].argmax(axis=1)]
    assert sorted(found) == sorted([*HOSTILE, "cmyk.jpg", "gray.png"])
    assert {found[name] for name in HOSTILE} == {"red\nbright"}
    table = {row["path"]: row for row in rows(tmp_path)}
    assert set(table) == {"'-1.png", 'c,"d".png', "deep/a\nb.jpg", "deep/?.png", "cmyk.jpg", "gray.png"}
    assert table["'-1.png"]["predicted"] == "red\nbright"
    assert float(table["'-1.png"]["p(red\nbright)"]) == float(table["'-1.png"]["probability"]) > 1 / 3
    (skipped,) = tmp_path.rglob("predictions.skipped_images.csv")
    assert "broken.png" in skipped.read_text()


def test_one_image_and_a_table(predicting, tmp_path):
    write_image(tmp_path / "one.png", 120)
    assert predicting("--ckpt_path", predicting.checkpoint, "--images", "one.png", "--predictions.path", "a.npz") == 0
    (found,) = tmp_path.rglob("a.npz")
    assert np.load(found)["predicted"].tolist() == ['a "green", dark']
    (tmp_path / "t.csv").write_text("id,photo\n1,one.png\n2,one.png\n3,gone.png\n")
    given = ["--ckpt_path", predicting.checkpoint, "--images", "t.csv"]
    assert predicting(*given) == 2
    assert predicting(*given, "--image_column", "photo", "--predictions.path", "b.npz") == 3
    (found,) = tmp_path.rglob("b.npz")
    assert np.load(found)["path"].tolist() == ["one.png", "one.png"]


def test_never_from_random_weights(predicting, tmp_path, capsys):
    write_image(tmp_path / "one.png", 120)
    assert predicting("--images", "one.png") == 2
    assert f"give `--ckpt_path` '{predicting.checkpoint}', which this run has left" in capsys.readouterr().err
    assert predicting("--images", "one.png", "--untrained", "true") == 2
    assert "`untrained` to be false with `--images`" in capsys.readouterr().err
    assert predicting("--images", "nowhere", "--ckpt_path", predicting.checkpoint) == 2
    assert "`images` to be an image, a folder of images, or a CSV table" in capsys.readouterr().err
    np.savez("x.npz", x=np.zeros((3, 2), np.float32), y=np.arange(3))
    features = ["--data", "FeaturesDataModule", "--data.path", "x.npz"]
    assert predicting(*features, "--images", "one.png", "--ckpt_path", predicting.checkpoint) == 2
    assert "FeaturesDataModule does not say how a network that it trains sees" in capsys.readouterr().err


def test_photos_are_brought_to_the_size_of_small_data_sets():
    photo = Image.new("RGB", (400, 100), (255, 0, 0))
    color, gray = CIFAR10DataModule().photo_transform()(photo), FashionMNISTDataModule().photo_transform()(photo)
    assert (color.shape, gray.shape) == ((3, 32, 32), (1, 28, 28))
    expected = (torch.tensor([1.0, 0, 0]) - torch.tensor(CIFAR10DataModule.mean)) / torch.tensor(CIFAR10DataModule.std)
    assert torch.allclose(color[:, 5, 5], expected)
    assert gray[0, 0, 0].item() == pytest.approx((76 / 255 - 0.2860) / 0.3530, abs=0.02)  # 0.299 of red


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(NoisyLabelError, match=r"None of the 1 images can be read, the first .*: cannot identify"):
        UnlabeledImages(tmp_path, lambda image: image).setup("predict")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoisyLabelError, match="not without any image"):
        UnlabeledImages(tmp_path / "empty", lambda image: image).setup("predict")
