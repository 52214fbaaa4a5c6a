"""The noisy validation accuracy chooses, all data are trained on, and what is finished is not run again."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml

from lightning_noisy.cli import run
from lightning_noisy.cli.tune import tune
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import DummyCIFAR10, isolate
from tests.tuning.planted import Epochs, Planted, hill

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


def results(output="runs/tune"):
    return json.loads(Path(output, "results.json").read_text())


SEARCH = ["--x", "1", "--search", "a=1,2,3", "--search", "b=4,5"]


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
    assert record["retrained"] == {"values": {"a": "2", "b": "5"}, "folder": "runs/tune/all_data_0"}
    assert [point["values"] for point in record["points"]] == [{"a": a, "b": b} for a, b in grid]
    assert [point["folder"] for point in record["points"]] == [f"runs/tune/trial_{i}" for i in range(6)]
    expected = [hill(float(a), float(b)) for a, b in grid]
    assert [point["score"] for point in record["points"]] == pytest.approx(expected)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if "%" in line]
    assert len(rows) == 6
    assert [line for line in rows if line.endswith("chosen")] == [rows[3]]
    assert "a 2, b 5" in rows[3]
    assert "55.00 %" in rows[3]
    assert "Trial 3: a 2, b 5" in printed
    assert "Training on all data: a 2, b 5" in printed
    assert [line for line in Path("runs", "tune", "results.txt").read_text().splitlines() if "%" in line] == rows


def test_the_first_of_the_highest_is_chosen():
    scores = (0.25, 1.0, 0.5, 1.0)
    assert tune(["--search", "a=0,1,2,3"], Planted(lambda a, b: scores[int(a)]))["chosen"] == {"a": "1"}


def test_another_fraction_and_another_accuracy():
    fit = Planted(hill)
    record = tune([*SEARCH, "--val_fraction", "0.2", "--monitor", "val/acc_top5", "--output", "elsewhere"], fit)
    assert all(call[-1] == "0.2" for call in fit.calls[:-1])
    assert record["chosen"] == {"a": "1", "b": "4"}
    assert results("elsewhere") == record
    assert not Path("runs").exists()


@pytest.mark.parametrize("monitor", ["test/acc", "imagenet/acc", "val/loss", "acc"])
def test_clean_figures_and_those_that_are_no_accuracies_choose_nothing(monitor):
    fit = Planted(hill)
    with pytest.raises(NoisyLabelError, match=f"`monitor` to be 'val/acc' or 'val/acc_top5', but got '{monitor}'"):
        tune([*SEARCH, "--monitor", monitor], fit)
    assert not fit.calls


def test_an_accuracy_that_is_not_logged_is_refused():
    def fit(arguments, attach):
        trainer = Planted(hill)(arguments, attach)
        del trainer.callback_metrics["val/acc_top5"]
        return trainer

    with pytest.raises(NoisyLabelError, match=r"`monitor` to be a noisy validation accuracy \(val/acc\), but got 'val"):
        tune([*SEARCH, "--monitor", "val/acc_top5"], fit)
    assert not Path("runs", "tune", "results.json").exists()


@pytest.mark.parametrize("fraction", ["0", "1", "-0.1", "nan"])
def test_another_share_is_refused(fraction):
    with pytest.raises(NoisyLabelError, match=r"`val_fraction` to be a float in \(0, 1\)"):
        tune([*SEARCH, "--val_fraction", fraction], Planted(hill))


# Started again


@pytest.mark.parametrize("stop_at", [0, 3, 6, 7])
def test_an_interrupted_search_goes_on_where_it_stopped(stop_at):
    whole, first, second = Planted(hill), Planted(hill, stop_at), Planted(hill)
    expected = tune([*SEARCH, "--output", "whole"], whole)
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
    assert [point["values"]["a"] for point in results()["points"]] == ["2", "1", "4"]


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
        (["--pruner", "median"], "pruner", []),
        (["--sampler", "tpe", "--trials", "1"], "sampler, search, sampler_seed", []),
    ],
)
def test_results_of_another_search_are_left_alone(changed, what, config):
    Path("config.yaml").write_text("trainer: {}")
    Path("on_top.yaml").write_text("base: config.yaml")
    search = [*SEARCH, *config]
    tune(search, Planted(hill))
    before = Path("runs", "tune", "journal.log").read_bytes()
    if changed is None:
        Path("config.yaml").write_text("trainer: {max_epochs: 3}")
    fit = Planted(hill)
    with pytest.raises(
        NoisyLabelError, match=rf"^'runs/tune/journal\.log' does not hold the trials .*\(other {what}\): give"
    ):
        tune([*search, *(changed or [])], fit)
    assert not fit.calls
    assert Path("runs", "tune", "journal.log").read_bytes() == before


def test_a_configuration_in_the_argument_itself_is_no_file():
    fit = Planted(hill)
    tune([*SEARCH, "--config={trainer: {logger: " + 300 * "x" + "}}"], fit)
    assert len(fit.calls) == 7


def test_a_search_in_which_nothing_was_trained_makes_way_for_another():
    with pytest.raises(NoisyLabelError):
        tune(SEARCH, Epochs(lambda a, b: []))
    assert tune(["--search", "a=2"], Planted())["chosen"] == {"a": "2"}


@pytest.mark.parametrize("path", ["file", "file/tune"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_run(path):
    Path("file").touch()
    fit = Planted(hill)
    with pytest.raises(NoisyLabelError, match=f"^Cannot write '{path}/journal.log', argument `output`: "):
        tune([*SEARCH, "--output", path], fit)
    assert not fit.calls


def test_runs_that_no_search_has_made_are_left_alone():
    Path("runs", "tune", "trial_0").mkdir(parents=True)
    with pytest.raises(NoisyLabelError, match=r"^'runs/tune/trial_0' is there, but no search that made it: give anot"):
        tune(SEARCH, Planted())
    assert Path("runs", "tune", "trial_0").exists()


# What is drawn


DRAWN = ["--search", "a=0..3", "--search", "b=1e-3..1:log", "--sampler", "tpe", "--trials"]


def test_tpe_has_as_many_trials_as_were_asked_for_and_more_when_it_is_started_again():
    first, second = Planted(), Planted()
    record = tune([*DRAWN, "12"], first)
    assert len(first.calls) == 13
    values = [float(point["values"]["a"]) for point in record["points"]]
    assert all(0 <= value <= 3 for value in values)
    assert len(set(values)) == 12
    best = max(record["points"], key=lambda point: hill(*(float(point["values"][name]) for name in "ab")))
    assert record["chosen"] == best["values"]
    record = tune([*DRAWN, "15"], second)
    assert [len(record["points"]), len(second.calls) - 3] in ([15, 0], [15, 1])
    assert tune([*DRAWN, "15"], Planted()) == record


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--trials", "3"], "`trials` to be left out: a grid has a trial for each of its points, but got 3"),
        (["--sampler", "tpe"], "`trials` to be an int of at least 1, but got None"),
        (["--sampler", "random", "--trials", "0"], "`trials` to be an int of at least 1, but got 0"),
        (["--sampler_seed", "-1"], "`sampler_seed` to be an int from 0 to"),
    ],
)
def test_another_number_is_refused(arguments, line):
    fit = Planted()
    with pytest.raises(NoisyLabelError, match=line):
        tune([*SEARCH, *arguments], fit)
    assert not fit.calls


def test_a_search_is_not_started_by_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NoisyLabelError, match=r"^`tune` begins the processes of a run itself: start it w"):
        tune(SEARCH, Planted())


# Trials that end early


def test_the_pruner_stops_what_is_below_the_median(capsys):
    """Of the first five .3 is the median in epoch 1: the sixth is below; the last is so in the last epoch alone."""
    curves = {a: (0.0, a / 10, 0.6) for a in (1, 2, 3, 4, 5)}
    curves |= {6: (0.0, 0.29, 0.9), 7: (0.0, 0.31, 0.7), 8: (0.0, 0.31, 0.2)}
    fit = Epochs(lambda a, b: curves[a])
    points = tune(["--search", "a=1,2,3,4,5,6,7,8", "--pruner", "median"], fit)["points"]
    assert [point["state"] for point in points] == [*5 * ["complete"], "pruned", "complete", "complete"]
    assert [len(point["epochs"]) for point in points] == [3, 3, 3, 3, 3, 2, 3, 3]
    assert [point["score"] for point in points] == pytest.approx([*5 * [0.6], 0.29, 0.7, 0.2])
    assert fit.calls[-1] == (7, 0)
    assert "a 6   29.00 %    pruned after epoch 1" in capsys.readouterr().out


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_other_pruners(pruner):
    curve = lambda a, b: [a * epoch / 100 for epoch in range(9)]  # noqa: E731
    search = ["--search", "a=5..9", "--sampler", "random", "--trials", "12", "--pruner", pruner]
    states = [point["state"] for point in tune(search, Epochs(curve))["points"]]
    assert set(states) == ({"complete"} if pruner == "none" else {"complete", "pruned"})


def test_what_fails_after_its_first_step_costs_itself_alone(capsys):
    errors = {1.0: NoisyLabelError("The loss is not finite."), 2.0: SystemExit(2), 3.0: RuntimeError("no memory")}
    errors[2.0].__cause__ = NoisyLabelError("refused")
    fit = Epochs(lambda a, b: (0.1, a / 10), errors)
    record = tune(["--search", "a=1,2,3,4,5"], fit)
    assert [point["error"] for point in record["points"]] == [
        "The loss is not finite.",
        "refused",
        "no memory",
        None,
        None,
    ]
    assert [point["state"] for point in record["points"]] == [*3 * ["failed"], *2 * ["complete"]]
    assert record["chosen"] == {"a": "5"}
    again = Epochs(lambda a, b: (0.1, a / 10))
    tune(["--search", "a=1,2,3,4,5"], again)
    assert not again.calls
    printed = capsys.readouterr()
    assert "a 1" in printed.out
    assert "failed: The loss is not finite." in printed.out
    assert "RuntimeError: no memory" in printed.err
    with pytest.raises(NoisyLabelError, match=r"^No point was trained to its end, so none is chosen: see 'other'"):
        tune(["--search", "a=1,2", "--output", "other"], Epochs(lambda a, b: (0.1, 0.2), errors))


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_what_is_interrupted_is_begun_again(error):
    curve = lambda a, b: (0.1, a / 10)  # noqa: E731
    with pytest.raises(type(error)):
        tune(["--search", "a=1,2,3"], Epochs(curve, {2.0: error}))
    again = Epochs(curve)
    record = tune(["--search", "a=1,2,3"], again)
    assert again.calls == [(2, 0), (3, 0), (3, 0)]
    epochs = [pytest.approx({"0": 0.1, "1": a / 10}) for a in (1, 2, 3)]
    assert [point["epochs"] for point in record["points"]] == epochs


@pytest.mark.parametrize(
    ("error", "left", "stays"),
    [
        (NoisyLabelError("no such argument"), False, False),
        (SystemExit(2), False, False),
        (NoisyLabelError("no such argument"), True, True),
        (KeyboardInterrupt(), False, True),
    ],
)
def test_a_search_that_is_refused_before_its_first_step_leaves_nothing(error, left, stays):
    def fit(arguments, attach):
        if left:
            Path("runs", "tune", "trial_0").mkdir()
        raise error

    with pytest.raises(type(error)):
        tune(["--search", "a=1,2"], fit)
    assert Path("runs").exists() == stays


def test_a_search_that_has_come_to_something_stays_when_it_is_refused():
    tune(["--search", "a=1"], Planted())
    before = sorted(Path("runs").rglob("*"))
    with pytest.raises(SystemExit):
        tune(["--search", "a=1,2"], lambda *_: sys.exit(2))
    assert sorted(Path("runs").rglob("*")) == before


# The command


def test_without_a_configuration_the_line_says_what_to_give(monkeypatch, capsys):
    for option, line in (
        (["--search", "model.optimizer.lr=0.1,0.2"], "model: its class is not named: give `--model CLASS`, or a file"),
        (["--config", "nope", "--search", "a=1,2"], "`config` to be a file or a recipe"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, *option)
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert stopped.value.code == 2
        assert line in said
        assert not Path("runs").exists()


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
    assert folders == [Path("runs", "tune", name) for name in ("trial_0", "trial_1", "all_data_0")]
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
        assert point["epochs"] == pytest.approx({epoch: epochs[epoch]["val/acc"] for epoch in "01"})
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


@pytest.mark.slow
def test_runs_of_two_processes(tmp_path):
    """Each has processes of its own, that know of `fit` alone; none is left behind."""
    options = [*SMALL, "--trainer.max_epochs", "1", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    started = [sys.executable, "-m", "lightning_noisy", "tune", "--config", "quickstart_ce", *options]
    search = ["--search", "model.optimizer.lr=0.001,0.1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PL_")}
    place = {"cwd": tmp_path, "env": {**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    done = subprocess.run([*started, *search], capture_output=True, text=True, timeout=400, check=False, **place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Initializing distributed: GLOBAL_RANK: 1, MEMBER: 2/2") == 3
    record = json.loads(Path(tmp_path, "runs", "tune", "results.json").read_text())
    for point in record["points"]:
        (epoch,) = json.loads(Path(tmp_path, point["folder"], "summary.json").read_text())["epochs"].values()
        assert point["score"] == pytest.approx(epoch["val/acc"])
    assert record["retrained"]["folder"] == "runs/tune/all_data_0"
    pruned = [*started, "--search", "model.optimizer.lr=0.1", "--pruner", "median", "--output", "pruned"]
    done = subprocess.run(pruned, capture_output=True, text=True, timeout=100, check=False, **place)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lightning-noisy: error: `--pruner` stops runs of one process: give")
    assert not list(Path(tmp_path, "pruned").glob("trial_*"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--search", "q"],
            "Expected argument `search` to be `<name>=<value>,<value>,...` or a range `<name>=<low>..<high>`",
        ),
        ([], "Expected argument `search` to be `<name>="),
        (["--search"], "argument --search: expected one argument; see `lightning-noisy tune --help`."),
        (["--val_fraction", "some"], "argument --val_fraction: invalid float value: 'some'; see"),
        (["--search", "q=1", "--monitor", "test/acc"], "Expected argument `monitor` to be 'val/acc' or"),
        (["--search", "seed_everything=1,2"], "`seed_everything` is not searched: the best of several seeds is luck."),
        (["--search", "q=1", "--sampler", "best"], "argument --sampler: invalid choice: 'best'"),
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
    assert "--search NAME=WHAT" in capsys.readouterr().out
