"""From people's own data to the list of wrong labels."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torchvision.models import get_model
from torchvision.transforms import v2

from lightning_noisy.cli import audit as command
from lightning_noisy.cli import run
from lightning_noisy.cli.audit_settings import as_run, feature_settings
from lightning_noisy.data import FeaturesDataModule, embedded_photos
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks.pretrained import Pretrained
from tests._dummies import isolate, quiet

COLORS = {"blue": (20, 40, 230), "green": (30, 220, 20), "red": (240, 20, 30)}
PER_CLASS, WRONG = 30, {"blue": "red", "green": "blue"}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)

    size = v2.Compose([v2.Resize((2, 2)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    mean_color = Pretrained("mean", nn.Flatten(), size, 2, (0.0,) * 3, (1.0,) * 3)
    monkeypatch.setattr(command, "network_at_hand", lambda: mean_color)
    return tmp_path


def images(root):
    """Squares of three colors; every tenth of two classes lies in the folder of another."""
    rng, wrong = np.random.default_rng(0), set()
    for name, color in COLORS.items():
        for number in range(PER_CLASS):
            given = WRONG.get(name, name) if number % 10 == 0 else name
            path = root / given / f"{name}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noisy = np.clip(np.array(color) + rng.normal(0, 12, (8, 8, 3)), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(path)
            if given != name:
                wrong.add(f"{given}/{path.name}")
    return wrong


def audit(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lightning-noisy", "audit", *map(str, arguments)])
    run()
    return capsys.readouterr().out


def flagged(folder):
    with (folder / "label_issues" / "label_issues.csv").open(newline="") as file:
        return {row["path"]: row["suggested"] for row in csv.DictReader(file) if row["flags"] == "wrong"}


def order(folder):
    with (folder / "label_issues" / "label_issues.csv").open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def test_a_folder(folder, monkeypatch, capsys):
    wrong = images(folder / "photos")
    large = Image.new("RGB", (4000, 3000), COLORS["red"])
    large.save(folder / "photos" / "red" / "red_1.png", "JPEG")  # not what its suffix says
    said = audit(monkeypatch, capsys, "photos", "--epochs", "40")
    output = Path("runs/audit/photos")
    assert said.startswith("Pretrained network: mean\n")
    assert set(flagged(output)) == wrong
    assert all(suggested == Path(path).name.partition("_")[0] for path, suggested in flagged(output).items())
    assert (output / "audit.yaml").read_text() in said
    assert yaml.safe_load((output / "audit.yaml").read_text())["data"]["init_args"]["path"] == str(
        output / "features.npz"
    )
    assert "data:image/jpeg;base64," in (output / "label_issues" / "report.html").read_text()
    with np.load(output / "label_issues" / "suggested_labels.npz", allow_pickle=False) as file:
        names = file["class_names"][file["labels"]].tolist()
        assert names == [Path(path).name.partition("_")[0] for path in file["path"]]


def test_a_table(folder, monkeypatch, capsys):
    wrong = images(folder / "photos")
    rows = [(str(path.relative_to(folder)), path.parent.name) for path in sorted((folder / "photos").rglob("*.png"))]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    audit(monkeypatch, capsys, "labels.csv", "--output", "found", "--epochs", "40")
    assert set(flagged(folder / "found")) == {f"photos/{path}" for path in wrong}


def test_from_scratch(folder, monkeypatch, capsys):
    """Without a pretrained network, which is said in one line. The classes are three colors: anything learns them."""
    wrong = images(folder / "photos")

    def absent(name, weights=None):
        raise NoisyLabelError(f"The weights of {name} are not on this machine.")

    monkeypatch.undo()
    isolate(monkeypatch, folder)
    monkeypatch.setattr("lightning_noisy.networks.pretrained.pretrained_network", absent)
    monkeypatch.setattr("lightning_noisy.networks.pretrained.find_spec", lambda name: None)
    said = audit(monkeypatch, capsys, "photos", "--epochs", "12", "--num_workers", "0")
    assert [line for line in said.splitlines() if "from scratch" in line] == [
        "No pretrained network is at hand, so a small one is trained from scratch, which finds less. The weights of "
        "resnet18 are not on this machine."
    ]
    output = Path("runs/audit/photos")
    settings = yaml.safe_load((output / "audit.yaml").read_text())
    assert settings["data"]["init_args"]["in_memory"]
    assert settings["model"]["init_args"]["backbone"]["class_path"] == "lightning_noisy.networks.SmallCNN"
    assert wrong <= set(order(output)[: len(wrong) + 3])
    with pytest.raises(SystemExit):
        audit(monkeypatch, capsys, "photos", "--finetune")
    assert "The weights of resnet18" in capsys.readouterr().err


def test_finetuning_a_table(folder, monkeypatch, capsys):
    """The whole network of a file with random weights."""
    wrong = images(folder / "photos")
    rows = [(str(path.relative_to(folder)), path.parent.name) for path in sorted((folder / "photos").rglob("*.png"))]
    with (folder / "labels.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("file", "species"), *rows])
    torch.manual_seed(0)
    torch.save(get_model("mobilenet_v3_small").state_dict(), "random.pth")
    columns = ["--num_workers", "0"]  # `file` and `species` are found
    model = ["--model", "mobilenet_v3_small", "--weights", "random.pth"]
    said = audit(monkeypatch, capsys, "labels.tsv", "--finetune", *model, *columns, "--epochs", "1")
    output = Path("runs/audit/labels-tsv")
    assert (output / "audit.yaml").read_text() in said
    settings = yaml.safe_load((output / "audit.yaml").read_text())
    backbone = {"name": "mobilenet_v3_small", "weights": "random.pth"}
    assert settings["model"]["init_args"]["backbone"]["init_args"] == backbone
    data = settings["data"]["init_args"]
    assert (data["image_size"], data["mean"], data["std"]) == (224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert {f"photos/{path}" for path in wrong} < set(order(output))
    assert len(order(output)) == 90
    config = (output / "config.yaml").read_bytes()
    trained = torch.load(next(output.rglob("*.ckpt")), weights_only=True)["state_dict"]
    begun = quiet(
        "fit", output / "config.yaml", "--ckpt_path", "last", "--trainer.fast_dev_run", "1", "--model.optimizer.lr", "0"
    )
    weights = begun.model.network.backbone.network.model.state_dict()
    assert torch.equal(weights["features.0.0.weight"], torch.load("random.pth")["features.0.0.weight"])
    first = "features.0.0.weight"
    checkpoint = str(next(output.rglob("*.ckpt")))
    Path("random.pth").rename("elsewhere.pth")  # the checkpoint has all weights
    predicted = quiet("predict", output / "config.yaml", "--ckpt_path", checkpoint, "--images", "photos/blue")
    assert len(torch.cat(predicted.trainer.predict_loop.predictions)) == 30
    assert (output / "config.yaml").read_bytes() == config  # of the fit, whatever runs later
    assert not torch.equal(trained[f"network.backbone.network.model.{first}"], torch.load("elsewhere.pth")[first])


@pytest.mark.parametrize("options", [["--finetune"], ["--from_scratch"]])
def test_features_have_no_network(options, folder, monkeypatch, capsys):
    np.savez("x.npz", x=np.zeros((4, 2)), y=np.arange(4) % 2)
    with pytest.raises(SystemExit):
        audit(monkeypatch, capsys, "x.npz", *options)
    assert "images for `--finetune` and `--from_scratch`" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--finetune"], ["--model", "resnet18"]])
def test_from_scratch_is_without_a_pretrained_network(options, folder, monkeypatch, capsys):
    images(folder / "photos")
    with pytest.raises(SystemExit):
        audit(monkeypatch, capsys, "photos", "--from_scratch", *options)
    assert "from_scratch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere", "relative to the working directory"),
        ("flat", "has no labels to audit"),
        ("no_y.npz", "it lacks"),
        ("odd.npz", "`x` (N, D) and `y` (N,)"),
        ("missing.npz", "missing.npz"),
        ("words.npz", "`y` are integers that count classes, but got '<U3'"),
        ("torn.npz", "torn.npz"),
        ("empty.npz", "to hold features `x` and labels `y`"),
        ("narrow.npz", "`x` (N, D) and `y` (N,)"),
        ("one.npz", "two classes at least, but got '0 alone'"),
        ("stray.npz", "not more than there are samples (3), but got 'a label 100000'"),
        ("single", "has a single class to audit"),
        (".", "outside of '.', whose folders are classes"),
    ],
)
def test_what_is_refused(path, says, folder, monkeypatch, capsys):
    (folder / "flat").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "flat" / "a.png")
    np.savez(folder / "no_y.npz", x=np.zeros((3, 2)))
    np.savez(folder / "odd.npz", x=np.zeros((3, 2)), y=np.zeros(4, int))
    np.savez(folder / "words.npz", x=np.zeros((3, 2)), y=np.array(["cat", "dog", "cat"]))
    (folder / "empty.npz").touch()
    np.savez(folder / "narrow.npz", x=np.zeros((3, 0)), y=np.arange(3))
    np.savez(folder / "one.npz", x=np.zeros((3, 2)), y=np.zeros(3, int))
    np.savez(folder / "stray.npz", x=np.zeros((3, 2)), y=np.array([0, 1, 100_000]))
    (folder / "single" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "single" / "cat" / "a.png")
    (folder / "torn.npz").write_bytes((folder / "odd.npz").read_bytes()[:-40])
    with pytest.raises(SystemExit) as stopped:
        audit(monkeypatch, capsys, path)
    said = capsys.readouterr().err.strip().splitlines()
    assert (stopped.value.code, len(said)) == (2, 1)
    assert says in said[0]
    assert not (folder / "runs").exists()


def test_a_table_says_how_it_is_laid_out(folder, monkeypatch, capsys):
    """Semicolons, usual names of another case, labels that count from 1, and a file that is listed twice."""
    images(folder / "photos")
    numbers = {name: str(number) for number, name in enumerate(COLORS, start=1)}
    rows = [(str(path), numbers[path.parent.name]) for path in Path("photos").rglob("*.png")]
    with Path("t.csv").open("w", newline="") as file:
        again = rows[0][0], str(int(rows[0][1]) % 3 + 1)
        csv.writer(file, delimiter=";").writerows([("Path", "Label"), *rows, again])
    with pytest.warns(UserWarning, match="2 train images are copies of 1 with different labels"):
        audit(monkeypatch, capsys, "t.csv", "--epochs", "1")
    output = Path("runs/audit/t-csv")
    with np.load(output / "features.npz") as file:
        assert file["class_names"].tolist() == ["1", "2", "3"]
        assert len(file["y"]) == 91
    assert (output / "contradicting_images.csv").read_text().count(rows[0][0]) == 2


def test_the_classifier_names_new_images(folder, monkeypatch, capsys):
    """Of an audit as it is, which was trained on features; the images and their folder are gone by then."""
    images(folder / "photos")
    audit(monkeypatch, capsys, "photos", "--epochs", "15")
    output = Path("runs/audit/photos")
    (folder / "photos").rename(folder / "moved")
    asked = []
    made = command.network_at_hand()
    monkeypatch.setattr(embedded_photos, "pretrained_network", lambda *given: asked.append(given) or made)
    checkpoint = str(next(output.rglob("*.ckpt")))
    quiet("predict", output / "config.yaml", "--ckpt_path", checkpoint, "--images", "moved/green")
    with next(output.glob("predictions.csv")).open(newline="") as file:
        found = {row["path"]: row["predicted"] for row in csv.DictReader(file)}
    assert asked == [("mean", None)]
    assert found == {f"{name}": name.split("_")[0] for name in found}
    assert len(found) == 27  # three lie elsewhere
    np.savez("plain.npz", x=np.zeros((4, 2), np.float32), y=np.arange(4) % 2)
    with pytest.raises(NoisyLabelError, match="on features that `lightning-noisy audit` or `embed` has made"):
        FeaturesDataModule("plain.npz").photo_transform()


def test_audits_are_not_mixed(folder, monkeypatch, capsys):
    images(folder / "photos.v1")
    shutil.copytree("photos.v1", "photos.v2")
    (folder / "photos.v2" / "red" / "broken.png").write_bytes(b"no image")
    for name in ("photos.v1", "photos.v2"):
        audit(monkeypatch, capsys, name, "--epochs", "1")
    second = Path("runs/audit/photos.v2")
    assert (second / "skipped_images.csv").exists()
    (folder / "photos.v2" / "red" / "broken.png").unlink()
    audit(monkeypatch, capsys, "photos.v2", "--epochs", "1")
    assert not (second / "skipped_images.csv").exists()
    assert len(list(second.rglob("*.ckpt"))) == 1
    assert len(order(Path("runs/audit/photos.v1"))) == 90
    before = {path: path.read_bytes() for path in second.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit):
        audit(monkeypatch, capsys, "photos.v1", "--output", second)
    assert "has an audit of other data" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in second.rglob("*") if path.is_file()} == before


def test_a_second_run_does_not_take_the_wrong_labels_for_the_truth(folder, monkeypatch, capsys):
    images(folder / "photos")
    audit(monkeypatch, capsys, "photos", "--epochs", "15")
    output = Path("runs/audit/photos")
    assert len(flagged(output)) > 0
    noise = ["--data.noise", "FileNoise", "--data.noise.path", str(output / "label_issues" / "suggested_labels.npz")]
    cli = quiet("fit", output / "audit.yaml", *noise, "--trainer.logger.name", "second", "--trainer.max_epochs", "1")
    assert cli.datamodule.clean_targets is cli.datamodule.realized_noise_rate is None
    with (output.parent / "second" / "label_issues" / "label_issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = {row["path"]: row["given"] for row in rows}
    assert "truth" not in rows[0]
    assert all(given[path] == suggested for path, suggested in flagged(output).items())


@pytest.mark.parametrize("name", ["1e3", "null", "${HOME}", "a b", "42"])
def test_folders_of_any_name(name, folder, monkeypatch, capsys):
    images(folder / name)
    (folder / name / "red").rename(folder / name / "~red")
    audit(monkeypatch, capsys, name, "--epochs", "1")
    (output,) = (folder / "runs" / "audit").iterdir()
    assert {"audit.yaml", "config.yaml", "label_issues"} <= {path.name for path in output.iterdir()}
    assert len(order(output)) == 90


def test_what_fit_or_embed_refuses_leaves_nothing(folder, monkeypatch, capsys):
    np.savez("negative.npz", x=np.zeros((30, 2), np.float32), y=-np.ones(30, int))
    for name in ("bad/a/1.jpg", "bad/b/2.jpg"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_bytes(b"no image")
    before = sorted(folder.rglob("*"))
    for path, says in (("negative.npz", "labels `y` from 0 on"), ("bad", "None of the 2 images can be read")):
        with pytest.raises(SystemExit):
            audit(monkeypatch, capsys, path)
        assert says in capsys.readouterr().err
        assert sorted(folder.rglob("*")) == before


def expected(many, width, lr):
    """Every setting of a head that finds wrong labels, by the number of samples, and all that depends on the run."""
    return {
        "seed_everything": 3,
        "trainer": {
            "max_epochs": 7,
            "gradient_clip_val": 5.0,
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": "runs", "name": "x", "version": ""},
            },
            "callbacks": [
                {"class_path": "lightning_noisy.callbacks.StepSeed"},
                {
                    "class_path": "lightning_noisy.callbacks.DALSchedule",
                    "init_args": {"q_start": 0.0, "q_end": 1.0, "target": "loss.base"},
                },
                {"class_path": "lightning_noisy.callbacks.ConfidenceTracker"},
                {"class_path": "lightning_noisy.callbacks.LabelIssueReport", "init_args": {"title": "t"}},
            ],
        },
        "model": {
            "class_path": "lightning_noisy.NoisyLabelModule",
            "init_args": {
                "num_classes": 3,
                "backbone": {
                    "class_path": "lightning_noisy.networks.MLP",
                    "init_args": {"in_features": width, "hidden": [512]},
                },
                "head": {"class_path": "lightning_noisy.heads.LinearHead"},
                "loss": {
                    "class_path": "lightning_noisy.losses.EarlyLearningRegularization",
                    "init_args": {
                        "lam": 3.0,
                        "momentum": 0.9,
                        "base": {"class_path": "lightning_noisy.losses.DynamicsAwareLoss", "init_args": {"q": 0.0}},
                    },
                },
                "optimizer": {
                    "class_path": "torch.optim.SGD",
                    "init_args": {"lr": lr, "momentum": 0.9},
                },
                "lr_scheduler": {
                    "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
                    "init_args": {"T_max": 7},
                },
            },
        },
        "data": {
            "class_path": "lightning_noisy.data.FeaturesDataModule",
            "init_args": {
                "path": "x.npz",
                "batch_size": 384 if many else 64,
                "noise_std": 0.3 if many else 1.0,
                "standardize": "overall",
            },
        },
    }


@pytest.mark.parametrize(
    ("samples", "width", "lr"), [(9_999, 5, 0.1), (9_999, 640, 0.01), (10_000, 640, 0.03), (10_000, 100, 0.1)]
)
def test_settings_follow_the_data(folder, samples, width, lr):
    np.savez("x.npz", x=np.zeros((samples, width), np.float16), y=np.arange(samples) % 3)
    head = feature_settings(Path("x.npz"))
    assert as_run(head, Path("runs/x"), 7, 3, {"title": "t"}) == expected(samples == 10_000, width, lr)
    whole = as_run(head, Path("runs/x"), None, 3, {})
    epochs = 16 if samples == 10_000 else 20
    assert whole["trainer"]["max_epochs"] == whole["model"]["init_args"]["lr_scheduler"]["init_args"]["T_max"] == epochs
