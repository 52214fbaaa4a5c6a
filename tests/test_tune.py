"""The noisy validation accuracy chooses, all data are trained on, and what is finished is not run again."""

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_noisy.cli import run
from lightning_noisy.cli.tune import search_grid, tune
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import DummyCIFAR10, isolate

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


def joined(arguments):
    """Arguments of the form ``--name value`` as ``--name=value``."""
    words = iter(arguments)
    return [word if "=" in word else f"{word}={next(words)}" for word in words]


class Planted:
    """A ``fit`` whose accuracies are a function of the values of ``a`` and ``b``; the clean ones are the opposite."""

    def __init__(self, score, stop_at=None):
        self.score, self.stop_at, self.calls = score, stop_at, []

    def __call__(self, arguments):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(arguments)
        last = dict(word.split("=", 1) for word in joined(arguments))  # the last of a name counts
        score = torch.tensor(self.score(float(last["--a"]), float(last.get("--b", 0))))
        noisy = {"val/acc": score, "val/acc_top5": 1 - score} if last["--data.val_fraction"] != "0" else {}
        metrics = {"test/acc": 1 - score, "val/loss": 1 - score, **noisy}
        return SimpleNamespace(callback_metrics=metrics, loggers=[None], log_dir=f"run_{len(self.calls)}")


def results():
    return json.loads(Path("runs", "tune.json").read_text())


SEARCH = ["--x", "1", "--search", "a=1,2,3", "--search", "b=4,5"]


def hill(a, b):
    return 0.5 - abs(a - 2) / 10 + b / 100


# The grid


def test_the_grid_has_all_combinations_the_last_argument_fastest():
    assert search_grid(["model.loss.q=0.5,0.7", "c=x,1e-3,-1"]) == [
        {"model.loss.q": q, "c": c} for q in ("0.5", "0.7") for c in ("x", "1e-3", "-1")
    ]
    assert search_grid(["loss={a: 1}"]) == [{"loss": "{a: 1}"}]
    assert search_grid(["path=a=b"]) == [{"path": "a=b"}]


@pytest.mark.parametrize(
    "searches",
    [[], ["q"], ["=1"], ["q="], ["q=1,"], ["q=,1"], ["q=1,1"], ["--q=1"], ["q=1", "q=2"], ["a=1,2", "b"], [""]],
)
def test_another_search_is_refused(searches):
    came = repr(searches[-1]) if searches else "None"
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `search` to be `<name>=<value>,<value>,") as error:
        search_grid(searches)
    assert str(error.value).endswith(f"but got {came}.")
    assert "\n" not in str(error.value)


# What chooses


def test_the_noisy_validation_accuracy_chooses_and_all_data_are_trained_on(capsys):
    fit = Planted(hill)
    record = tune(SEARCH, fit)

    grid = list(product("123", "45"))
    noisy = ["--data.noisy_val", "true", "--data.val_fraction", "0.1"]
    assert fit.calls[:-1] == [["--x", "1", f"--a={a}", f"--b={b}", *noisy] for a, b in grid]
    assert fit.calls[-1] == ["--x", "1", "--a=2", "--b=5", "--data.val_fraction", "0"]
    assert record == results()
    assert record["chosen"] == {"a": "2", "b": "5"}
    assert record["retrained"] == {"values": {"a": "2", "b": "5"}, "folder": "run_7"}
    assert [point["values"] for point in record["points"]] == [{"a": a, "b": b} for a, b in grid]
    assert [point["folder"] for point in record["points"]] == [f"run_{i}" for i in range(1, 7)]
    expected = [hill(float(a), float(b)) for a, b in grid]
    assert [point["score"] for point in record["points"]] == pytest.approx(expected)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "%" in line]
    assert len(rows) == 6
    assert [line for line in rows if line.endswith("chosen")] == [rows[3]]
    assert "a 2, b 5" in rows[3]
    assert "55.00 %" in rows[3]
    assert "Point 4 of 6: a 2, b 5" in printed
    assert "Training on all data: a 2, b 5" in printed


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=5))
def test_the_first_of_the_highest_is_chosen(scores):
    Path("runs", "tune.json").unlink(missing_ok=True)
    search = ["--search", "a=" + ",".join(map(str, range(len(scores))))]
    record = tune(search, Planted(lambda a, b: scores[int(a)]))
    best = [i for i, score in enumerate(scores) if all(score >= other for other in scores)]
    assert record["chosen"] == {"a": str(best[0])}


def test_another_fraction_and_another_accuracy():
    fit = Planted(hill)
    record = tune([*SEARCH, "--val_fraction", "0.2", "--monitor", "val/acc_top5", "--results", "elsewhere.json"], fit)
    assert all(call[-1] == "0.2" for call in fit.calls[:-1])
    assert record["chosen"] == {"a": "1", "b": "4"}
    assert json.loads(Path("elsewhere.json").read_text()) == record
    assert not Path("runs").exists()


@pytest.mark.parametrize("monitor", ["test/acc", "imagenet/acc", "val/loss", "acc"])
def test_clean_figures_and_those_that_are_no_accuracies_choose_nothing(monitor):
    fit = Planted(hill)
    with pytest.raises(NoisyLabelError, match=f"`monitor` to be 'val/acc' or 'val/acc_top5', but got '{monitor}'"):
        tune([*SEARCH, "--monitor", monitor], fit)
    assert not fit.calls


def test_an_accuracy_that_is_not_logged_is_refused():
    def fit(arguments):
        trainer = Planted(hill)(arguments)
        del trainer.callback_metrics["val/acc_top5"]
        return trainer

    with pytest.raises(NoisyLabelError, match=r"`monitor` to be a noisy validation accuracy \(val/acc\), but got 'val"):
        tune([*SEARCH, "--monitor", "val/acc_top5"], fit)
    assert not Path("runs", "tune.json").exists()


@pytest.mark.parametrize("fraction", ["0", "1", "-0.1", "nan"])
def test_another_share_is_refused(fraction):
    with pytest.raises(NoisyLabelError, match=r"`val_fraction` to be a float in \(0, 1\)"):
        tune([*SEARCH, "--val_fraction", fraction], Planted(hill))


# Started again


@pytest.mark.parametrize("stop_at", range(8))
def test_an_interrupted_search_goes_on_where_it_stopped(stop_at):
    whole, first, second = Planted(hill), Planted(hill, stop_at), Planted(hill)
    expected = tune([*SEARCH, "--results", "whole.json"], whole)
    if stop_at < 7:
        with pytest.raises(KeyboardInterrupt):
            tune(SEARCH, first)
    else:
        tune(SEARCH, first)
    record = tune(SEARCH, second)
    assert first.calls + second.calls == whole.calls
    for key in ("chosen", "arguments", "val_fraction", "monitor"):
        assert record[key] == expected[key]
    assert [point["score"] for point in record["points"]] == [point["score"] for point in expected["points"]]
    assert record["retrained"]["values"] == record["chosen"]


def test_a_grid_may_grow_and_is_trained_again_only_for_another_choice():
    tune(["--search", "a=1,2"], Planted(hill))
    same, other = Planted(hill), Planted(lambda a, b: 0.9)
    tune(["--search", "a=1,3,2"], same)
    assert [call[0] for call in same.calls] == ["--a=3"]
    record = tune(["--search", "a=2,1,4"], other)
    assert [call[0] for call in other.calls] == ["--a=4", "--a=4"]
    assert record["retrained"]["values"] == {"a": "4"}
    assert len(results()["points"]) == 4


def test_points_of_a_smaller_grid_choose_among_themselves():
    tune(["--search", "a=1,2,3"], Planted(hill))
    assert tune(["--search", "a=1"], Planted(hill))["chosen"] == {"a": "1"}


@pytest.mark.parametrize(
    ("changed", "what", "config"),
    [
        (["--y", "1"], "arguments", ["--config", "config.yaml"]),
        (["--val_fraction", "0.2"], "val_fraction", ["--config", "config.yaml"]),
        (["--monitor", "val/acc_top5"], "monitor", ["--config", "config.yaml"]),
        (None, "configs", ["--config", "config.yaml"]),
        (None, "configs", ["--config=config.yaml"]),
        (None, "configs", ["--data", "config.yaml"]),
        (None, "configs", ["--data=config.yaml"]),
        (None, "configs", ["--config", "on_top"]),
    ],
)
def test_results_of_another_search_are_left_alone(changed, what, config):
    Path("config.yaml").write_text("trainer: {}")
    Path("on_top.yaml").write_text("base: config.yaml")
    search = [*SEARCH, *config]
    tune(search, Planted(hill))
    before = Path("runs", "tune.json").read_bytes()
    if changed is None:
        Path("config.yaml").write_text("trainer: {max_epochs: 3}")
    fit = Planted(hill)
    with pytest.raises(
        NoisyLabelError, match=rf"^'runs/tune\.json' does not hold the results .*\(other {what}\): give"
    ):
        tune([*search, *(changed or [])], fit)
    assert not fit.calls
    assert Path("runs", "tune.json").read_bytes() == before


def test_a_configuration_in_the_argument_itself_is_no_file():
    fit = Planted(hill)
    tune([*SEARCH, "--config={trainer: {logger: " + 300 * "x" + "}}"], fit)
    assert len(fit.calls) == 7


@pytest.mark.parametrize("path", [".", "file/tune.json"])
def test_results_that_cannot_be_written_are_refused_before_the_first_run(path):
    Path("file").touch()
    fit = Planted(hill)
    with pytest.raises(NoisyLabelError, match=f"^Expected argument `results` to be .*, but got '{path}'"):
        tune([*SEARCH, "--results", path], fit)
    assert not fit.calls


@pytest.mark.parametrize("content", ["", "max_epochs: 3", "{}", "[]", "3"])
def test_another_file_is_left_alone(content):
    Path("file").write_text(content)
    with pytest.raises(NoisyLabelError, match=r"^'file' does not hold the results of this search"):
        tune([*SEARCH, "--results", "file"], Planted(hill))
    assert Path("file").read_text() == content


# The command


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["lightning-noisy", "tune", *map(str, arguments)])
    run()


SILENT = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
BATCHES = ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "2"]
SMALL = ["--trainer.max_epochs", "2", *BATCHES, "--trainer.accelerator", "cpu", *SILENT]


def test_the_command(monkeypatch, recwarn):
    config = ["--config", CONFIGS / "quickstart_ce.yaml", *SMALL, "--data.noisy_val", "false"]
    names = ("model.optimizer.lr=0.001,0.1", "data.batch_size=64", "model.lr_scheduler.eta_min=-1e-3")
    searches = [part for name in names for part in ("--search", name)]
    command(monkeypatch, *config, *searches)

    record = results()
    folders = [Path(run["folder"]) for run in (*record["points"], record["retrained"])]
    assert len(set(folders)) == 3
    for point, folder in zip(record["points"], folders, strict=False):
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == float(
            point["values"]["model.optimizer.lr"]
        )
        assert settings["model"]["init_args"]["lr_scheduler"]["init_args"]["eta_min"] == -1e-3
        data = settings["data"]["init_args"]
        assert (data["val_fraction"], data["noisy_val"], data["batch_size"]) == (0.1, True, 64)
        epochs = json.loads((folder / "summary.json").read_text())["epochs"]
        assert point["score"] == pytest.approx(epochs["1"]["val/acc"])
    best = max(record["points"], key=lambda point: point["score"])
    settings = yaml.safe_load((folders[-1] / "config.yaml").read_text())
    assert settings["data"]["init_args"]["val_fraction"] == 0
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == float(best["values"]["model.optimizer.lr"])
    assert "val/acc" not in json.loads((folders[-1] / "summary.json").read_text())["epochs"]["1"]
    assert not [w for w in recwarn if "args parameter" in str(w.message)]
    before = sorted(Path("runs").rglob("config.yaml"))
    command(monkeypatch, *config, *searches)
    assert sorted(Path("runs").rglob("config.yaml")) == before


def test_a_number_of_the_method_is_searched(monkeypatch):
    """The callback that an overlay appends is the one that the command line reaches."""
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    network = ["--model.backbone", "lightning_noisy.networks.SmallCNN", "--model.backbone.in_channels", "3"]
    options = [*network, *SMALL, "--data.num_workers", "0", "--data.batch_size", "8", "--trainer.max_epochs", "1"]
    command(monkeypatch, "--config", "dal/cifar10", *options, "--search", "trainer.callbacks.q_start=0.4,0.6")

    for point in results()["points"]:
        settings = yaml.safe_load(Path(point["folder"], "config.yaml").read_text())
        (schedule,) = (c for c in settings["trainer"]["callbacks"] if c["class_path"].endswith("DALSchedule"))
        assert str(schedule["init_args"]["q_start"]) == point["values"]["trainer.callbacks.q_start"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--search", "q"],
            "Expected argument `search` to be `<name>=<value>,<value>,...`, each argument and value once",
        ),
        ([], "Expected argument `search` to be `<name>="),
        (["--search"], "argument --search: expected one argument; see `lightning-noisy tune --help`."),
        (["--val_fraction", "some"], "argument --val_fraction: invalid float value: 'some'; see"),
        (["--search", "q=1", "--monitor", "test/acc"], "Expected argument `monitor` to be 'val/acc' or"),
    ],
)
def test_what_cannot_be_used_is_one_line(monkeypatch, capsys, arguments, line):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    (only,) = printed.err.splitlines()
    assert only.startswith(f"lightning-noisy: error: {line}")


def test_help(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, "--help")
    assert stop.value.code == 0
    assert "--search NAME=VALUE" in capsys.readouterr().out
