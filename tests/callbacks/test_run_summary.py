import copy
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning_utilities.core import rank_zero
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import RunSummary
from lightning_noisy.data import SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer, make_validation_loader
from tests.small import MemoryLogger, SmallDataModule, make_module


def summary_of(test=None, val=None, **options):
    """A summary that has seen these accuracies, an entry an epoch."""
    summary = RunSummary(**options)
    for name, values in (("test/acc", test), ("val/acc", val)):
        for epoch, value in enumerate(values or []):
            summary.history.setdefault(epoch, {})[name] = value
    return summary


@pytest.fixture
def printed():
    """What Lightning prints, under the name of `lightning.pytorch` or of `pytorch_lightning`, whichever came last."""

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, handler, logger = [], Lines(), rank_zero.log
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def tables(printed):
    return [line for line in printed if "last epoch" in line]


# Rows


def test_the_validation_split_chooses_and_the_test_set_is_reported():
    rows = summary_of(test=[0.2, 0.5, 0.9, 0.4], val=[0.3, 0.8, 0.6, 0.7]).rows()

    assert rows == [("best epoch (1, chosen by val/acc)", 0.5), ("last epoch (3)", 0.4)]


def test_of_equally_good_epochs_the_first_is_chosen():
    assert summary_of(test=[0.2, 0.5, 0.9], val=[0.3, 0.8, 0.8]).rows()[0][1] == 0.5


def test_without_a_validation_split_the_test_set_chooses_and_the_row_says_so():
    label, value = summary_of(test=[0.2, 0.9, 0.4]).rows()[0]

    assert value == 0.9
    assert label == "highest (1, no validation split: chosen by test/acc)"


def test_without_a_test_set_validation_is_reported():
    summary = summary_of(val=[0.3, 0.8, 0.6])

    assert summary.reported() == "val/acc"
    assert summary.rows() == [("best epoch (1, chosen by val/acc)", 0.8), ("last epoch (2)", 0.6)]


@pytest.mark.parametrize(("epochs", "means"), [(4, []), (5, [5]), (9, [5]), (10, [5, 10]), (12, [5, 10])])
def test_means_are_of_the_last_epochs_where_there_are_enough(epochs, means):
    values = [epoch**2 / 1000 for epoch in range(epochs)]

    rows = dict(summary_of(test=values).rows()[2:])

    labels = {n: f"mean of the last {n} epochs ({epochs - n} to {epochs - 1})" for n in means}
    assert list(rows) == list(labels.values())
    for n, label in labels.items():
        assert rows[label] == pytest.approx(sum(e**2 for e in range(epochs - n, epochs)) / 1000 / n)


@pytest.mark.parametrize("seen", [[3, 7, 11, 15, 19], [0, 1, 2, 4, 5]])
def test_means_name_their_epochs_where_some_were_not_validated(seen):
    summary = RunSummary()
    summary.section.history = {epoch: {"val/acc": epoch / 100} for epoch in seen}

    label, value = summary.rows()[-1]
    assert label == f"mean of the last 5 validations (epochs {', '.join(map(str, seen))})"
    assert value == pytest.approx(sum(seen) / 500)


@pytest.mark.parametrize("validates", [True, False])
def test_metrics_that_are_not_logged_are_asked_for(tmp_path, validates):
    trainer = make_trainer(tmp_path, [RunSummary(metric=("accuracy", "val/f1"))], 1)
    loaders = [make_validation_loader()] if validates else []
    x, noisy, _ = make_tensors()
    data = make_loader(TensorDataset(x, noisy, torch.arange(24)))
    seen = "val/loss" if validates else "nothing"
    with pytest.warns(
        UserWarning, match=f"looks for accuracy or val/f1 at .*, this run has logged {seen}; name others"
    ):
        trainer.fit(ForeignModule(), data, *loaders)


def test_epochs_are_in_their_order_whatever_order_they_came_in():
    summary = summary_of(test=[0.1, 0.2, 0.3], val=[0.7, 0.6, 0.7])
    summary.section.history = {epoch: summary.history[epoch] for epoch in (2, 0, 1)}

    assert summary.rows() == [("best epoch (0, chosen by val/acc)", 0.1), ("last epoch (2)", 0.3)]


def test_other_names_can_be_reported_and_choose():
    summary = RunSummary(metric=("absent", "a", "b"), monitor="b")
    summary.section.history = {0: {"a": 0.1, "b": 0.9}, 1: {"a": 0.3, "b": 0.2}}

    assert summary.reported() == "a"
    assert summary.rows()[0] == ("best epoch (0, chosen by b)", 0.1)


def test_nothing_logged_is_no_table():
    assert RunSummary().rows() == []
    assert RunSummary().reported() is None


def test_a_metric_needs_a_name():
    with pytest.raises(NoisyLabelError, match="`metric` to be at least one name"):
        RunSummary(metric=())


@pytest.mark.parametrize("argument", ["metric", "also"])
def test_a_name_alone_is_not_taken_for_its_letters(argument):
    with pytest.raises(NoisyLabelError, match=f"`{argument}` to be a tuple of names, but got 'val/acc'"):
        RunSummary(**{argument: "val/acc"})


def test_the_table_says_what_where_and_how_noisy():
    summary = summary_of(test=[0.25, 0.5], val=[0.1, 0.2])

    lines = summary.table(0.402, "runs/first").splitlines()

    assert lines[1].split() == ["test/acc"]
    values = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[1] for line in lines if line.endswith("%")}
    assert values == {
        "best epoch (1, chosen by val/acc)": "50.00 %",
        "last epoch (1)": "50.00 %",
        "realized noise rate": "40.20 %",
    }
    assert len({len(line) for line in lines if line.endswith("%")}) == 1
    assert lines[-2:] == ["logs: runs/first", "see them with: tensorboard --logdir runs/first"]
    assert "noise" not in summary.table(None, None)
    assert "logs" not in summary.table(None, None)


def with_imagenet(**more):
    """Epoch 1 is chosen, epoch 2 is better on the second test set."""
    summary = RunSummary(also=("test/acc_top5", "imagenet/acc"))
    test, imagenet = (0.25, 0.75, 0.5), (0.125, 0.375, 0.625)
    summary.section.history = {
        epoch: {"imagenet/acc": imagenet[epoch], "test/acc": test[epoch], "other": 1.0, **more} for epoch in (0, 1, 2)
    }
    return summary


def test_further_figures_are_those_of_the_same_epochs():
    summary = with_imagenet(**{"test/acc_top5": 0.875})

    assert summary.columns() == ["test/acc", "test/acc_top5", "imagenet/acc"]
    best = "highest (1, no validation split: chosen by test/acc)"
    assert summary.rows() == [(best, 0.75), ("last epoch (2)", 0.5)]
    assert summary.rows("imagenet/acc") == [(best, 0.375), ("last epoch (2)", 0.625)]
    lines = summary.table(0.25, None).splitlines()
    assert lines[1].split() == summary.columns()
    cells = [re.findall(r"\S+ %", line) for line in lines[3:6]]
    assert cells == [["75.00 %", "87.50 %", "37.50 %"], ["50.00 %", "87.50 %", "62.50 %"], ["25.00 %"]]
    assert {len(line) for line in lines[1:5]} == {len(lines[1])}


def test_a_further_figure_that_is_missing_in_an_epoch_is_left_out():
    summary = with_imagenet()
    del summary.history[0]["imagenet/acc"]

    assert summary.columns() == ["test/acc"]
    summary.history[0].pop("test/acc")
    assert summary.columns() == ["test/acc", "imagenet/acc"]


def test_what_is_reported_does_not_stand_beside_itself():
    assert RunSummary().columns() == []
    summary = RunSummary(metric=("imagenet/acc",))
    summary.section.history = {0: {"imagenet/acc": 0.5}}
    assert summary.columns() == ["imagenet/acc"]


# State


def test_the_state_survives_a_file_and_is_a_copy(tmp_path):
    summary = summary_of(test=[0.2, 0.5], val=[0.3, 0.1])
    torch.save(summary.section.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = RunSummary()
    other.section.load_state_dict(state)
    expected = copy.deepcopy(summary.history)

    assert other.history == expected
    assert other.rows() == summary.rows()
    other.history[0]["test/acc"] = 9.0
    summary.section.state_dict()["history"][1]["test/acc"] = 9.0
    assert summary.history == expected
    assert state["history"] == expected


# Which validations count


def seeing(summary, fn="fit", epoch=0, sanity=False, **metrics):
    trainer = SimpleNamespace(
        training=False,
        validating=True,
        sanity_checking=sanity,
        state=SimpleNamespace(fn=fn),
        current_epoch=epoch,
        callback_metrics={name.replace("_", "/"): torch.tensor(value) for name, value in metrics.items()},
    )
    summary.on_validation_end(trainer, None)


def test_validations_of_the_fit_count_once_an_epoch():
    summary = RunSummary()
    seeing(summary, sanity=True, test_acc=0.9)
    seeing(summary, train_acc=0.9)
    assert summary.history == {}

    seeing(summary, epoch=0, test_acc=0.25, val_acc=0.5, train_loss=3.0, imagenet_loss=2.0)
    seeing(summary, epoch=1, test_acc=0.125)
    seeing(summary, epoch=1, test_acc=0.75)
    seeing(summary, fn="validate", epoch=1, test_acc=0.0)
    assert summary.history == {0: {"test/acc": 0.25, "val/acc": 0.5}, 1: {"test/acc": 0.75}}
    seeing(summary, epoch=2, test_acc=0.75, imagenet_acc=0.5)
    assert summary.history[2] == {"test/acc": 0.75, "imagenet/acc": 0.5}


# Classes that are given up


class WithoutTheLast(NoisyLabelModule):
    """Never predicts the last of four classes."""

    def forward(self, images):
        return super().forward(images) * 0.01 + torch.tensor([0.0, 0.0, 0.0, -9.0])


@pytest.mark.parametrize("val_fraction", [0.5, 0.0])
def test_a_class_that_is_given_up_is_said(tmp_path, recwarn, val_fraction):
    """Of the first set that is evaluated: a noisy validation split, else the test set."""
    data = SmallDataModule(SymmetricNoise(0.1), num_samples=96, val_fraction=val_fraction, seed=0)
    module = WithoutTheLast(SmallCNN(width=4, num_features=8), LinearHead, nn.CrossEntropyLoss(), 4)
    trainer = make_trainer(tmp_path, [RunSummary()], 2, logger=FolderLogger(tmp_path), num_sanity_val_steps=1)
    trainer.fit(module, datamodule=data)
    split = "val" if val_fraction else "test"
    loader = data.val_dataloader()
    loader = loader[0] if isinstance(loader, list) else loader
    labels = torch.cat([batch[1] for batch in loader])
    with torch.no_grad():
        predicted = torch.cat([module.eval()(batch[0]).argmax(dim=1) for batch in loader])
    rare = [k for k in range(4) if (predicted == k).sum() < 0.1 * (labels == k).sum() and (labels == k).sum() >= 5]
    assert 3 in rare
    assert trainer.callback_metrics[f"{split}/classes_predicted"] == len(predicted.unique())
    share = sum(int((labels == k).sum()) for k in rare) / len(labels)
    (said,) = [str(one.message) for one in recwarn if "never predicted" in str(one.message)]
    names = ", ".join(map(str, rare))
    assert f"(almost) never predicted, though {share:.0%} of the labels are theirs: {names}. " in said
    assert json.loads((tmp_path / "summary.json").read_text())["collapse"] == said


# Whole runs


class Recorder(Callback):
    """Notes the accuracies at each end of an epoch."""

    def __init__(self):
        self.seen = {}

    def on_train_epoch_end(self, trainer, pl_module):
        names = ("test/acc", "val/acc")
        metrics = trainer.callback_metrics
        self.seen[trainer.current_epoch] = {name: metrics[name].item() for name in names if name in metrics}


class FolderLogger(MemoryLogger):
    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    save_dir = property(lambda self: self.folder)


def fit(folder, summary, max_epochs=3, callbacks=(), **options):
    fraction, path = options.pop("val_fraction", 0.25), options.pop("ckpt_path", None)
    trainer = make_trainer(folder, [*callbacks, summary], max_epochs, **options)
    module = make_module(nn.CrossEntropyLoss(), dropout=0.0)
    datamodule = SmallDataModule(SymmetricNoise(0.1), num_samples=96, val_fraction=fraction, seed=0)
    trainer.fit(module, datamodule=datamodule, ckpt_path=path)
    return trainer


@pytest.mark.parametrize("val_fraction", [0.25, 0.0])
def test_a_run_prints_its_table_once_and_writes_it(tmp_path, printed, val_fraction):
    recorder, summary = Recorder(), RunSummary()
    options = {"val_fraction": val_fraction, "num_sanity_val_steps": 2, "logger": FolderLogger(tmp_path)}
    trainer = fit(tmp_path / "elsewhere", summary, 6, [recorder], **options)
    content = json.loads((tmp_path / "summary.json").read_text())
    seen, selects = recorder.seen, "val/acc" if val_fraction else "test/acc"
    chosen = max(seen, key=lambda epoch: seen[epoch][selects])
    rate = trainer.datamodule.realized_noise_rate

    assert len({figures["test/acc"] for figures in seen.values()}) > 2
    assert {int(epoch): figures for epoch, figures in content["epochs"].items()} == seen
    assert content["metric"] == "test/acc"
    assert content["also"] == {}
    assert content["realized_noise_rate"] == rate
    assert content["collapse"] is None
    best, last, mean = content["rows"].items()
    assert str(chosen) in best[0]
    assert ("no validation split" in best[0]) == (val_fraction == 0)
    assert best[1] == seen[chosen]["test/acc"]
    assert last == ("last epoch (5)", seen[5]["test/acc"])
    assert mean[1] == pytest.approx(sum(seen[epoch]["test/acc"] for epoch in range(1, 6)) / 5)
    (table,) = tables(printed)
    assert f"{100 * last[1]:.2f} %" in table
    assert re.search(f"injected by SymmetricNoise +{100 * rate:.2f} %", table)
    assert str(tmp_path) in table
    assert sorted(path.name for path in tmp_path.glob("*summary*")) == ["summary.json"]


def test_a_later_validation_does_not_change_the_summary(tmp_path, printed):
    summary = RunSummary()
    trainer = fit(tmp_path, summary, 1)
    before = copy.deepcopy(summary.history)
    trainer.validate(trainer.lightning_module, datamodule=SmallDataModule(seed=9), verbose=False)
    trainer.test(trainer.lightning_module, datamodule=SmallDataModule(seed=9), verbose=False)

    assert summary.history == before
    assert len(tables(printed)) == 1


def test_a_resumed_run_knows_the_epochs_before(tmp_path):
    whole, first, resumed = RunSummary(), RunSummary(), RunSummary()
    fit(tmp_path, whole, 2)
    fit(tmp_path, first, 1).save_checkpoint(tmp_path / "first.ckpt")
    fit(tmp_path, resumed, 2, ckpt_path=tmp_path / "first.ckpt")

    assert list(resumed.history) == [0, 1]
    assert resumed.history[0] == first.history[0] == whole.history[0]


def test_a_new_fit_forgets_the_last_one(tmp_path):
    summary = RunSummary()
    fit(tmp_path, summary, 2)
    fit(tmp_path, summary, 1)

    assert list(summary.history) == [0]


@pytest.mark.parametrize("logger", [False, MemoryLogger()])
def test_without_a_logger_that_has_a_folder_there_is_the_table_alone(tmp_path, printed, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, RunSummary(), 1, logger=logger)

    (table,) = tables(printed)
    assert "logs" not in table
    assert not list(tmp_path.iterdir())


def test_a_development_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, RunSummary(), fast_dev_run=2, logger=FolderLogger(tmp_path))

    assert not list(tmp_path.iterdir())


def test_a_development_run_prints_nothing(tmp_path, printed):
    fit(tmp_path, RunSummary(), fast_dev_run=2)

    assert not tables(printed)


def finish(summary, folder, rank=0):
    asked = []

    class Trainer:
        is_global_zero, loggers = rank == 0, (None,)
        datamodule = SimpleNamespace(realized_noise_rate=0.25)

        @property
        def log_dir(self):
            asked.append(rank)
            return folder

    summary.on_fit_end(Trainer(), None)
    return asked


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_writes_and_all_ask_for_the_folder(tmp_path, rank):
    """Asking is a collective."""
    assert finish(summary_of(test=[0.5]), str(tmp_path / "run"), rank) == [rank]
    assert (tmp_path / "run" / "summary.json").exists() == (rank == 0)


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    finish(summary_of(test=[0.5]), str(tmp_path))
    before = (tmp_path / "summary.json").read_text()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(summary_of(test=[0.75, 0.5]), str(tmp_path))
    assert (tmp_path / "summary.json").read_text() == before

    finish(summary_of(test=[0.75, 0.5]), str(tmp_path))
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["epochs"] == {"0": {"test/acc": 0.75}, "1": {"test/acc": 0.5}}
    assert content["realized_noise_rate"] == 0.25
