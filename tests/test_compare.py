"""Runs side by side: what is trained, what is read, what is refused."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_noisy.cli import run
from lightning_noisy.cli import trainings as started
from lightning_noisy.cli.compare import compare_runs, seeds
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import isolate


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


def write(folder, values, metric="test/acc", **more):
    folder.mkdir(parents=True, exist_ok=True)
    epochs = {
        str(epoch): {metric: value, **{k: v[epoch] for k, v in more.items()}} for epoch, value in enumerate(values)
    }
    (folder / "summary.json").write_text(json.dumps({"metric": metric, "epochs": epochs}))


def test_finished_runs_by_hand(folder, capsys):
    # Twelve epochs: as text "10" comes before "9".
    write(folder / "low" / "a", [0.0] * 10 + [0.9, 0.2])
    write(folder / "low" / "b" / "c", [0.0] * 10 + [0.8, 0.4])
    write(folder / "high", [0.1] * 10 + [0.7, 0.6], **{"val/acc": [0.9] + [0.5] * 11})
    rows = compare_runs(["low", "high", "--last", "2"])
    assert [row.name for row in rows] == ["high", "low"]
    assert rows[1].last.mean == pytest.approx(0.3)
    assert rows[1].last.deviation == pytest.approx(statistics.stdev([0.2, 0.4]))
    assert rows[1].mean_last.values == pytest.approx((0.55, 0.6))
    assert rows[1].best.values == (0.9, 0.8)
    assert (rows[0].best.values, rows[0].last.deviation) == ((0.1,), None)  # validation chose the first epoch
    table = (folder / "runs/comparison/comparison.md").read_text()
    assert "| low  | 30.00 ± 14.14 | 85.00 ± 7.07 " in table
    assert "some chosen by the test set" in table
    assert table in capsys.readouterr().out
    assert (folder / "runs/comparison/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_a_folder_are_together_where_only_the_seed_differs(folder, capsys):
    for name, values, settings in (
        ("a/v0", [0.1], "seed_everything: 0\nmodel: {lr: 1}\ntrainer: {logger: x}"),
        ("a/v1", [0.3], "seed_everything: 1\nmodel: {lr: 1}\ntrainer: {logger: y}"),
        ("a/v2", [0.9], "seed_everything: 0\nmodel: {lr: 2}\ntrainer: {logger: z}"),
    ):
        write(folder / "done" / name, values)
        (folder / "done" / name / "config.yaml").write_text(settings)
    rows = {row.name: row.last.values for row in compare_runs(["done"])}
    assert rows == {"done/a": (0.1, 0.3), "done/a/v2": (0.9,)}
    write(folder / "done" / "a" / "v3", [0.7])
    (folder / "done" / "a" / "v3" / "config.yaml").write_text("seed_everything: 0\nmodel: {lr: 2}\ntrainer: {}")
    rows = {row.name: row.last.values for row in compare_runs(["done"])}
    assert rows["done/a/v3"] == (0.7,)
    assert "the same run: the latter, which is newer, counts" in capsys.readouterr().out


def test_a_configuration_without_a_summary_gets_one(folder):
    (folder / "own.yaml").write_text("base: own/features\n")
    for config, added in (("own.yaml", True), ("quickstart", False)):
        fit = started.Job(config, 0, folder / "runs", ()).fit
        assert any("RunSummary" in word for word in fit) is added
    asked = started.Job("own.yaml", 0, folder / "runs", ("--trainer.callbacks+=RunSummary",)).fit
    assert sum("RunSummary" in word for word in asked) == 1


class Trainings:
    """Stands where trainings would begin."""

    def __init__(self, fail=()):
        self.seen, self.fail = [], fail

    def __call__(self, arguments, **options):
        values = dict(word.removeprefix("--").split("=", 1) for word in arguments[4:] if "=" in word)
        self.seen.append((values["config"], int(values["seed_everything"])))
        options["stdout"].write(b"\nfirst\nlightning-noisy: error: No such thing.\n")
        if values["seed_everything"] not in self.fail:
            target = folder_of(values)
            write(target, [0.5, 0.1 * int(values["seed_everything"])])
        code = 2 if values["seed_everything"] in self.fail else 0
        return type("Training", (), {"wait": lambda _: code})()


def folder_of(values):
    return Path(values["trainer.logger.save_dir"], values["trainer.logger.name"])


@pytest.fixture
def trainings(monkeypatch):
    planted = Trainings()
    monkeypatch.setattr(started.subprocess, "Popen", planted)
    return planted


def test_each_seed_is_trained_once(trainings, folder):
    rows = compare_runs(
        ["quickstart", "quickstart_ce", "--seeds", "1-2", "--jobs", "2", "--", "--trainer.max_epochs", "2"]
    )
    assert sorted(trainings.seen) == [(name, seed) for name in ("quickstart", "quickstart_ce") for seed in (1, 2)]
    assert rows[0].last.values == (0.1, 0.2)
    compare_runs(["quickstart", "--seeds", "0-2", "--", "--trainer.max_epochs", "2"])
    assert trainings.seen[4:] == [("quickstart", 0)]
    assert (folder / "runs/comparison/quickstart/seed_2/log.txt").is_file()


def test_a_training_that_failed_is_said_and_done_again(trainings):
    trainings.fail = ("1",)
    with pytest.raises(
        NoisyLabelError, match=r"'quickstart' with seed 1 failed: No such thing. See '.*seed_1/log.txt'"
    ):
        compare_runs(["quickstart", "--seeds", "0-1"])
    trainings.fail = ()
    compare_runs(["quickstart", "--seeds", "0-1"])
    assert trainings.seen == [("quickstart", 0), ("quickstart", 1), ("quickstart", 1)]


def test_nothing_begins_after_a_failure(trainings):
    trainings.fail = ("0",)
    with pytest.raises(NoisyLabelError, match="with seed 0 failed"):
        compare_runs(["quickstart", "--seeds", "0-3"])
    assert trainings.seen == [("quickstart", 0)]


def test_a_terminated_command_leaves_no_training_behind(monkeypatch):
    begun, original = [], subprocess.Popen

    def sleeper(_, **options):
        begun.append(original([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return begun[-1]

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(started.subprocess, "Popen", sleeper)
    with pytest.raises(SystemExit) as ended:
        compare_runs(["quickstart", "--seeds", "0-3"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert [training.returncode for training in begun] == [-signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_folder_of_somebody_else_stays(trainings, folder):
    own = folder / "runs/comparison/quickstart/seed_0/notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(NoisyLabelError, match="was not made by this command"):
        compare_runs(["quickstart"])
    assert own.read_text() == "mine"


def test_results_of_other_arguments_are_not_taken(trainings, folder):
    (folder / "own.yaml").write_text("base: quickstart\n")
    compare_runs(["own.yaml"])
    (folder / "own.yaml").write_text("base: quickstart\nseed_everything: 3\n")
    with pytest.raises(NoisyLabelError, match="another configuration"):
        compare_runs(["own.yaml"])
    with pytest.raises(NoisyLabelError, match="other arguments"):
        compare_runs(["own.yaml", "--", "--trainer.max_epochs=2"])


@pytest.mark.parametrize(
    ("text", "found"), [("0-4", [0, 1, 2, 3, 4]), ("3", [3]), ("0,7,2-3", [0, 7, 2, 3])], ids=lambda value: str(value)
)
def test_seeds(text, found):
    assert seeds(text) == found


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: RUN"),
        (["nowhere"], "a file or a recipe"),
        (["quickstart", "--seeds", "4-0"], "`seeds`"),
        (["quickstart", "--seeds", "0,0"], "`seeds`"),
        (["quickstart", "--seeds", "a"], "`seeds`"),
        (["quickstart", "--jobs", "0"], "`jobs`"),
        (["quickstart", "quickstart"], "called 'quickstart'"),
        (["empty"], "has no summary.json"),
        (["broken"], "not the summary of a run"),
        (["good", "--metric", "val/acc"], "no `val/acc`, but test/acc"),
        (["good", "other"], "report test/acc and val/acc"),
    ],
)
def test_what_is_refused(arguments, says, folder, monkeypatch, capsys):
    (folder / "empty").mkdir()
    write(folder / "good", [0.5])
    write(folder / "other", [0.5], metric="val/acc")
    write(folder / "broken", [])
    (folder / "broken" / "summary.json").write_text("[1]")
    monkeypatch.setattr(sys, "argv", ["lightning-noisy", "compare", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run()
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert len(said) == 1
    assert says in said[0]


@pytest.mark.slow
def test_two_trainings(folder):
    rows = compare_runs(["quickstart", "quickstart_ce", "--", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"])
    assert {row.name for row in rows} == {"quickstart", "quickstart_ce"}
    assert (folder / "runs/comparison/quickstart/seed_0/config.yaml").is_file()
