"""The report of a run that has ended, from its checkpoint alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLoop
from lightning_noisy.callbacks import ConfidenceTracker, LabelIssueReport, TrainingDynamics
from lightning_noisy.cli import run
from lightning_noisy.data import IndexedDataset
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import CoTeaching, isolate, quiet, write_image
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

EQUAL = ("label_issues.csv", "suggested_labels.npz", "cleanlab.npz")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


def report(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lightning-noisy", "report", *map(str, arguments)])
    run()


def refused(monkeypatch, capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        report(monkeypatch, *arguments)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    return line


def same(first, second, names=EQUAL):
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


class Tensors(TensorDataset):
    """Samples of a foreign project that have paths, hostile ones among them, and classes that have names."""

    class_names = ("a", "b", "=c", "d\n")

    def __init__(self, *tensors):
        super().__init__(*tensors)
        self.sources = [b"x/\xff.png", "é/=1.png".encode(), *(f"{i}.png".encode() for i in range(2, len(self)))]


def foreign_fit(folder, callbacks, epochs=3, **options):
    x, given, _ = make_tensors()
    torch.manual_seed(0)
    loader = make_loader(IndexedDataset(Tensors(x, given)), batch_size=5, shuffle=True)
    checkpoints = ModelCheckpoint(folder / "checkpoints", **options)
    trainer = make_trainer(folder, [*callbacks, checkpoints], epochs, enable_checkpointing=True)
    trainer.fit(ForeignModule(), loader)


def test_a_foreign_project(folder, monkeypatch, caplog):
    clean = make_tensors()[2]
    foreign_fit(folder / "run", [LabelIssueReport(clean_targets=clean, title="mine"), ConfidenceTracker(clean)])
    report(monkeypatch, folder / "run", "--output", folder / "later")
    assert same(folder / "run" / "label_issues", folder / "later", (*EQUAL, "report.html", "fiftyone/data.json"))
    assert "labels look wrong, the estimated noise rate is " in caplog.messages[-1]


def test_the_last_of_several_checkpoints(folder, monkeypatch):
    foreign_fit(folder / "run", [LabelIssueReport()], save_top_k=-1)
    newest, *_ = sorted((folder / "run" / "checkpoints").iterdir(), reverse=True)
    for path in newest, folder / "run":
        report(monkeypatch, path, "--output", folder / path.name)
        assert same(folder / "run" / "label_issues", folder / path.name)
    (folder / "run" / "checkpoints" / "last.previous.ckpt").write_bytes(newest.read_bytes())
    (folder / "run" / "checkpoints" / "last.ckpt").write_bytes(newest.read_bytes()[:900])
    with pytest.warns(UserWarning, match="the checkpoint before it, is loaded"):
        report(monkeypatch, folder / "run", "--output", folder / "torn")
    assert same(folder / "run" / "label_issues", folder / "torn")
    oldest = min((folder / "run" / "checkpoints").iterdir())
    report(monkeypatch, oldest, "--output", folder / "early")
    assert not same(folder / "run" / "label_issues", folder / "early")


def test_training_dynamics_alone(folder, monkeypatch):
    foreign_fit(folder / "watched", [TrainingDynamics()])
    foreign_fit(folder / "reported", [LabelIssueReport()])
    report(monkeypatch, folder / "watched")
    assert same(folder / "reported" / "label_issues", folder / "watched" / "label_issues")
    assert "<h1>watched</h1>" in (folder / "watched" / "label_issues" / "report.html").read_text()


@pytest.mark.parametrize("where", ["validation", "last batch", "inside"])
def test_an_epoch_that_the_checkpoint_ends_counts(where, folder, monkeypatch):
    """Written in the validation, or by its last batch, a checkpoint has an epoch that no metrics are made of yet."""
    options = {
        "validation": {"save_on_train_epoch_end": False},
        "last batch": {"every_n_train_steps": 10, "save_top_k": -1},
        "inside": {"every_n_train_steps": 7, "save_top_k": -1},
    }
    for epochs in (1, 2):
        checkpoints = ModelCheckpoint(folder / f"{epochs}" / "checkpoints", **options[where])
        trainer = make_trainer(
            folder / f"{epochs}", [LabelIssueReport(), checkpoints], epochs, enable_checkpointing=True
        )
        data = SmallDataModule(seed=0, batch_size=4)
        trainer.fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=data)
        assert trainer.num_training_batches == 10
    report(monkeypatch, folder / "2", "--output", folder / "later")
    assert same(folder / ("1" if where == "inside" else "2") / "label_issues", folder / "later")


def test_photos_on_the_command_line(folder, monkeypatch, capsys):
    for number in range(12):
        write_image(Path("photos", "ab"[number % 2], f"{number}.png"), 20 * number, (40, 40))
    small = ["SmallCNN", "--model.backbone.in_channels=3", "--data.image_size=16", "--data.num_workers=0"]
    cli = quiet("fit", "own/photos", "--model.num_classes=2", "--trainer.max_epochs=1", "--model.backbone", *small)
    written = Path(cli.trainer.log_dir, "label_issues")
    report(monkeypatch, cli.trainer.log_dir, "--output", "later")
    assert same(written, Path("later"))
    paths = json.loads(Path("later", "fiftyone", "data.json").read_text()).values()
    assert sorted(paths) == sorted(str(path.absolute()) for path in Path("photos").rglob("*.png"))
    assert "data:image/jpeg;base64," in Path("later", "report.html").read_text()
    Path("photos").rename("moved")
    assert "`image_root` to be a folder" in refused(monkeypatch, capsys, cli.trainer.log_dir, "--image_root", "photos")
    Path("moved", "a", "0.png").write_bytes(b"no image any more")
    report(monkeypatch, cli.trainer.log_dir, "--output", "again", "--image_root", "moved")
    pages = (Path(name, "report.html").read_text() for name in ("later", "again"))
    before, after = (page.count("data:image/jpeg;base64,") for page in pages)
    assert before > after > 0
    Path("moved").rename("gone")
    Path("empty").mkdir()
    with pytest.warns(
        UserWarning, match=r"report.html shows no pictures, since no file is where the samples' paths say"
    ):
        report(monkeypatch, cli.trainer.log_dir, "--output", "third", "--image_root", "empty")


def test_what_is_refused(folder, monkeypatch, capsys):
    assert "folder of a run that has one" in refused(monkeypatch, capsys, folder)
    foreign_fit(folder / "plain", [ConfidenceTracker()])
    assert "--trainer.callbacks+=LabelIssueReport" in refused(monkeypatch, capsys, folder / "plain")
    foreign_fit(folder / "bare", [])
    assert "--trainer.callbacks+=LabelIssueReport" in refused(monkeypatch, capsys, folder / "bare")
    foreign_fit(folder / "early", [LabelIssueReport()], every_n_train_steps=2, save_top_k=-1)
    first = min((folder / "early" / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    assert "first epoch had ended" in refused(monkeypatch, capsys, first)
    assert "checkpoints of 3 runs" in refused(monkeypatch, capsys, folder)
    (folder / "torn.ckpt").write_bytes(first.read_bytes()[:500])
    assert "cut short" in refused(monkeypatch, capsys, folder / "torn.ckpt")
    torch.save({"weight": torch.zeros(1)}, folder / "weights.ckpt")
    assert "state dict alone" in refused(monkeypatch, capsys, folder / "weights.ckpt")


@pytest.mark.parametrize("nested", [True, False])
def test_what_a_loop_has_saved(nested, folder, monkeypatch, capsys):
    x, given, _ = make_tensors()
    module, callback = torch.nn.Linear(6, 4), LabelIssueReport()
    noisy = NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), [callback], TensorDataset(x, given))
    noisy.update(torch.randn(24, 4), given, torch.arange(24), 0)
    torch.save(noisy.state_dict(), "early.pt")
    noisy.end_epoch()
    state = noisy.state_dict()
    torch.save({"model": module.state_dict(), "noisy": state} if nested else state, "last.pt")
    noisy.finish()
    report(monkeypatch, "last.pt", "--output", "later")
    assert same(folder / "label_issues", folder / "later")
    assert "first epoch had ended" in refused(monkeypatch, capsys, "early.pt")


def test_a_state_that_is_not_whole_is_said_in_a_line(folder, monkeypatch, capsys):
    foreign_fit(folder / "run", [LabelIssueReport()])
    (path,) = (folder / "run").rglob("*.ckpt")

    def broken(change):
        checkpoint = torch.load(path, weights_only=True)
        (section,) = checkpoint["callbacks"]["lightning_noisy"]["sections"].values()
        change(section["parts"])
        torch.save(checkpoint, "broken.ckpt")
        return refused(monkeypatch, capsys, "broken.ckpt")

    for change in (
        lambda parts: parts["facts"].pop("names"),
        lambda parts: parts["facts"].update(labels=torch.zeros(3)),
        lambda parts: parts["dynamics"].pop("curves"),
        lambda parts: parts["dynamics"]["table"]["label"].fill_(9),
        lambda parts: parts["dynamics"]["table"].update(label=torch.zeros(3)),
    ):
        assert "What the checkpoint says of its samples is not whole" in broken(change)


def test_rows_have_no_pictures(folder, monkeypatch, capsys):
    x, given, _ = make_tensors()
    loader = make_loader(IndexedDataset(TensorDataset(x, given)), batch_size=5)
    make_trainer(folder, [LabelIssueReport()], 1, enable_checkpointing=True).fit(ForeignModule(), loader)
    assert "leave out `--image_root`" in refused(monkeypatch, capsys, folder, "--image_root", folder)
    report(monkeypatch, folder, "--output", folder / "later")
    with np.load(folder / "later" / "suggested_labels.npz") as file:
        assert file["row"].tolist() == list(range(24))


def test_of_several_criteria_one_is_named(folder, monkeypatch, capsys):
    torch.manual_seed(0)
    module = CoTeaching(lambda: SmallCNN(width=4, num_features=8), LinearHead, torch.nn.CrossEntropyLoss(), 4)
    callbacks = [LabelIssueReport(criterion=f"losses.{i}", output=f"{i}") for i in (0, 1)]
    trainer = make_trainer(folder, callbacks, 2, enable_checkpointing=True)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    assert "give one as `criterion`" in refused(monkeypatch, capsys, folder)
    report(monkeypatch, folder, "--criterion", "losses.1", "--output", folder / "later")
    assert same(folder / "1", folder / "later")
    assert not same(folder / "0", folder / "later")
    assert "learned at `loss`" in refused(monkeypatch, capsys, folder, "--criterion", "loss")
