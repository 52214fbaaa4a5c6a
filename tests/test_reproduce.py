"""Cells of published tables: what is trained, in which order, what is gone on with, what is recorded and shown."""

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from matplotlib.figure import Figure

from benchmarks import reproduce, runs
from benchmarks.cells import AGENDA, Training, changes, published_cells, select
from benchmarks.record import read_record
from benchmarks.reproduce import main
from benchmarks.run_maker import RunMaker
from benchmarks.runs import held
from docs import results
from lightning_noisy.cli.command_line import _run
from lightning_noisy.recipes import on_top, recipe_settings
from tests._dummies import isolate, needs_command_line

MASKED = Training("dcm/cifar10/anl-dfc", "--data.noise.rate 0.8", 0.3, "")
MACHINE = {"commit": "c0ffee", "processor": "a CPU", "torch": "2", "lightning": "2"}
CELLS = ["--cells", "CIFAR-10 / ANL / symmetric 80", "CIFAR-10 / ANL-DFC / symmetric 80"]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    return tmp_path


class TestCells:
    def test_a_cell_is_what_the_table_says(self):
        (cell,) = select("DCM, table 1", ["CIFAR-10 / ANL-DFC / symmetric 80"])
        assert (cell.recipe, cell.arguments) == (MASKED.recipe, MASKED.arguments)
        assert (cell.published, cell.epoch, cell.metric) == ("62.98±0.95", "average", "test/acc")
        assert [training.ratio for training in cell.trainings((0.3, 0.5))] == [0.3, 0.5]
        assert [training.ratio for training in cell.trainings()] == [0.7]
        (plain,) = select("dcm, table 1", ["ANL / CIFAR-10 / symmetric 80"])
        assert [training.ratio for training in plain.trainings((0.3, 0.5))] == [None]

    def test_tables_that_disagree_share_a_run(self):
        names = ("DCM, table 1", "DCM, masking method", "DCM, other masks", "DCM, interval of masking")
        cells = [cell for name in names for cell in select(name) if cell.trainings((0.3,)) == [MASKED]]
        assert [(cell.published, cell.epoch) for cell in cells] == [
            ("62.98±0.95", "average"),
            *[("65.19", "best"), ("63.93", "average")] * 3,
        ]

    def test_a_table_is_called_without_what_follows_its_colon(self):
        assert {cell.table for cell in select("GSS, table 4")} == {
            "GSS, table 4: Clothing1M",
            "GSS, table 4: WebVision-Mini",
        }
        assert not [cell for cell in published_cells() if cell.table.startswith("GSS, table 2")]  # no accuracies

    def test_which_epoch_is_compared(self):
        tables = ("DAL, table 2", "DCM, table 1", "DCM, clean labels", "NAL, table 1", "NAL, table 4")
        epochs = [{cell.epoch for cell in select(table)} for table in tables]
        assert epochs == [{"last"}, {"average"}, {"average"}, {"last"}, {"best"}]

    def test_a_recipe_is_a_table_of_noises(self):
        (worse, plain) = (select("gss/cifar10", names)[0] for names in (["worse"], []))
        assert worse.arguments == "--data.noise FileNoise --data.noise.path data/cifar10n.npz --data.noise.key worse"
        assert (plain.arguments, plain.published) == ("", None)

    def test_what_is_due_begins_with_the_ratio(self):
        due = reproduce._due(SimpleNamespace(table=None, seeds="0-1"), "")
        first = [(training.recipe, training.ratio, seed) for training, seed in due[:8]]
        ratios = [("dcm/cifar10/anl-dfc", ratio) for ratio in (0.3, 0.5, 0.7)] + [("dcm/cifar10/anl", None)]
        assert first == [(*one, seed) for seed in (0, 1) for one in ratios]
        assert len(set(due)) == len(due)
        tables = [step.table for step in AGENDA]
        assert tables.index("DAL, table 2") < tables.index("NAL, table 1") < tables.index("DCM, table 2")

    def test_another_ratio_is_all_that_changes(self):
        recipe = recipe_settings(MASKED.recipe)
        changed = on_top(recipe, changes(MASKED))
        masks = [one for one in changed["trainer"]["callbacks"] if one["class_path"].endswith("MaskRefresh")]
        assert [one.pop("init_args") for one in masks] == [{"ratio": 0.3}]
        assert changed == recipe
        assert changes(Training(MASKED.recipe, "", 0.7, "")) == {}

    def test_data_are_looked_for_below_the_root(self):
        maker = RunMaker(Path("out"), Path("mine"), toy=False)
        worse = maker.make(select("gss/cifar10", ["worse"])[0].trainings()[0], 0)
        root = str(Path("mine").resolve())  # however it is spelled
        assert worse.config["data"]["init_args"]["root"] == root
        assert f"{root}/cifar10n.npz" in worse.arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["DCM, tabel 1"], "No table or recipe 'DCM, tabel 1' ('DCM, table 1'"),
        (["DCM, table 1", "--cells", "ANL-DCF / symmetric 80"], "no cell 'ANL-DCF / symmetric 80' ('ANL-DFC'"),
        (["dcm/cifar100/anl", "--cells", "symmetric 40"], "No labels 'symmetric 40' for 'dcm/cifar100/anl'"),
        (["gss/cifar10", "--jobs", "0"], "`jobs` to be an int >= 1"),
        (["gss/cifar10", "--budget", "0"], "`budget` to be minutes, more than 0"),
        (["DCM, table 1", "--ratio", "1"], "`ratio` to be floats in [0, 1)"),
        (["--ratio", "0.3"], "`TABLE` to be given where `--cells` or `--ratio` is"),
        (["gss/cifar10"], "data', which should hold 'cifar-10-batches-py'"),
        (["nal/animal10n", "--toy"], "`toy` to be left out for other data than CIFAR"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_is_one_line(capsys, arguments, line):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr().err
    assert stop.value.code == 2
    assert printed.startswith("reproduce: error: ")
    assert printed.count("\n") == 1
    assert line in printed


class Process:
    """Stands where a training would be: it ends after some looks at it, as it is told."""

    pid = 0

    def __init__(self, world, command, pass_fds, **options):
        self.world, self.looks, self.returncode = world, world.minutes, None
        given = dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)
        self.folder = Path(given["trainer.logger.save_dir"], given["trainer.logger.name"])
        self.name = (json.loads((self.folder / "asked.json").read_text())["recipe"], int(given["seed_everything"]))
        (*_, noted) = json.loads((self.folder / "parts.json").read_text())
        assert noted == {**MACHINE, "device": noted["device"], "at_once": noted["at_once"], "seconds": None}
        world.began.append((*self.name, given.get("ckpt_path", "").rpartition("/")[2]))
        world.running.append(self)
        world.most = max(world.most, len(world.running))

    def poll(self):
        self.looks -= 1
        if self.returncode is None and self.looks < 0:
            self.end(self.name[0] in self.world.failing)
        return self.returncode

    def end(self, failed):
        self.world.running.remove(self)
        self.returncode = self.world.code_of_failure if failed else 0
        if not failed:
            epochs = {str(epoch): {"test/acc": value} for epoch, value in enumerate(self.world.accuracy)}
            content = {"metric": "test/acc", "epochs": epochs, "realized_noise_rate": 0.8}
            (self.folder / "summary.json").write_text(json.dumps(content))

    def terminate(self):
        self.checkpoint("stopped", 7)
        self.world.running.remove(self)
        self.returncode = -15

    def wait(self, seconds):
        assert self.returncode is not None

    def checkpoint(self, name, steps, broken=None):
        path = self.folder / "checkpoints" / f"{name}.ckpt"
        path.parent.mkdir(exist_ok=True)
        torch.save({"global_step": steps, "callbacks": {"lightning_noisy": {"broken_batch": broken}}}, path)


class World:
    """A clock of minutes, and the processes of a call."""

    def __init__(self, monkeypatch, root):
        self.began, self.running, self.failing, self.most, self.minutes = [], [], set(), 0, 2
        self.code_of_failure = 1
        self.accuracy = [0.0] * 5 + [0.9] + [0.5] * 9 + [0.6]
        self.root = root
        (root / "cifar-10-batches-py").mkdir()
        now = iter(range(10**6))
        self.now = next(now)
        clock = SimpleNamespace(monotonic=lambda: 60 * self.now, sleep=lambda seconds: self.pass_a_minute())
        started = SimpleNamespace(
            Popen=lambda command, **options: Process(self, command, **options),
            DEVNULL=subprocess.DEVNULL,
            STDOUT=subprocess.STDOUT,
        )
        monkeypatch.setattr(runs, "time", clock)
        monkeypatch.setattr(runs, "subprocess", started)
        monkeypatch.setattr(runs, "describe_machine", lambda: MACHINE)

    def pass_a_minute(self):
        self.now += 1

    def call(self, *arguments):
        """The record after a call."""
        main(["DCM, table 1", *CELLS, "--root", str(self.root), "--results", "record/all.json", *arguments])
        return read_record(Path("record/all.json")).get("runs", {})


@pytest.fixture
def world(monkeypatch, tmp_path):
    return World(monkeypatch, tmp_path)


ANL, DFC = "dcm/cifar10/anl", "dcm/cifar10/anl-dfc"


def test_a_budget_ends_and_the_next_call_goes_on(world, capsys):
    record = world.call("--seeds", "0-1", "--jobs", "2", "--budget", "4")
    assert world.began == [(ANL, 0, ""), (DFC, 0, ""), (ANL, 1, ""), (DFC, 1, "")]
    assert world.most == 2
    assert [name.rpartition(", ")[2] for name in record] == ["seed 0"] * 2
    assert (
        "stopped, to go on with the next call: dcm/cifar10/anl --data.noise.rate 0.8, seed 1" in capsys.readouterr().out
    )
    record = world.call("--seeds", "0-1", "--jobs", "2")
    assert world.began[4:] == [(ANL, 1, "stopped.ckpt"), (DFC, 1, "stopped.ckpt")]
    assert len(record) == 4
    assert world.call("--seeds", "0-1") == record
    assert len(world.began) == 6


def test_the_record_has_best_last_and_average(world):
    world.call("--budget", "1", "--jobs", "3")
    record = world.call("--jobs", "2")
    run = record["dcm/cifar10/anl-dfc --data.noise.rate 0.8, ratio 0.7, seed 0"]
    (seen,) = run.pop("metrics").values()
    assert seen == pytest.approx({"best": 0.9, "last": 0.6, "average": 0.51})
    assert run == {
        "recipe": DFC,
        "arguments": "--data.noise.rate 0.8",
        "ratio": 0.7,
        "options": "",
        "seed": 0,
        "epochs": 16,
        "averaged": 10,
        "realized_noise_rate": 0.8,
        "seconds": 60.0 + 180.0,
        "device": "a CPU",
        "at_once": "3, then 2",
        **{name: MACHINE[name] for name in ("commit", "torch", "lightning")},
    }


def test_a_run_that_fails_is_said_and_the_others_are_done(world, capsys):
    world.failing = {ANL}
    with pytest.raises(SystemExit) as stop:
        world.call()
    assert stop.value.code == 1
    assert "failed: dcm/cifar10/anl --data.noise.rate 0.8, seed 0: nothing was said" in capsys.readouterr().out
    assert [run["recipe"] for run in read_record(Path("record/all.json"))["runs"].values()] == [DFC]
    world.code_of_failure = -signal.SIGKILL
    with pytest.raises(SystemExit):
        world.call()
    assert "seed 0: ended by SIGKILL. See" in capsys.readouterr().out


def test_how_long_a_run_took_whose_end_nobody_saw_is_not_known(world):
    world.call("--budget", "1", "--jobs", "2")
    for path in Path("runs").rglob("parts.json"):
        (part,) = json.loads(path.read_text())
        path.write_text(json.dumps([{**part, "seconds": None}]))
    record = world.call()
    assert [(run["seconds"], run["commit"]) for run in record.values()] == [(None, MACHINE["commit"])] * 2


@pytest.mark.parametrize(
    "content", ['{"runs": {"a": {"rec', "[1]", '{"runs": {"a": 3}}', '{"runs": {"a": {"recipe": ""}}}']
)
def test_what_is_no_record_is_left_alone(world, capsys, content):
    Path("record").mkdir()
    Path("record/all.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        world.call()
    assert stop.value.code == 2
    assert "all.json' is no record of this script: mend it, or move it away." in capsys.readouterr().err
    assert Path("record/all.json").read_text() == content
    assert world.began == []


def test_a_checkpoint_of_a_batch_that_broke_is_not_gone_on_with(world):
    world.call("--budget", "1", "--jobs", "2")
    for stopped in Path("runs").rglob("stopped.ckpt"):
        process = SimpleNamespace(folder=stopped.parent.parent)
        Process.checkpoint(process, "stopped", 9, {"batch": 3})
        if "anl-dfc" in str(stopped):
            Process.checkpoint(process, "last", 5)
            stopped.write_bytes(b"torn")
    world.call()
    assert world.began[2:] == [(ANL, 0, ""), (DFC, 0, "last.ckpt")]


def test_a_run_of_other_settings_is_begun_anew(world, monkeypatch, capsys):
    world.call("--budget", "1", "--jobs", "2")
    settings = recipe_settings("dcm/cifar10/anl-dfc")["data"]
    other = {**settings, "init_args": {**settings["init_args"], "seed": 5}}
    monkeypatch.setattr("benchmarks.run_maker.settings_of", lambda name: {"data": other})
    capsys.readouterr()
    world.call()
    assert [place for *_, place in world.began[2:]] == ["", ""]
    assert capsys.readouterr().out.count("begun anew, since its settings are others now: dcm/cifar10/anl") == 2


def test_what_another_process_is_at_is_left_to_it(world, capsys):
    world.call("--budget", "1", "--jobs", "2")
    lock = held(next(path for path in Path("runs/reproduce").iterdir() if "dfc" not in path.name))
    record = world.call()
    assert [run["recipe"] for run in record.values()] == [DFC]
    assert "another process is at it: dcm/cifar10/anl " in capsys.readouterr().out
    os.close(lock)
    assert len(world.call()) == 2


def test_what_is_due_leaves_out_what_has_no_data(world, capsys):
    main(["--root", str(world.root), "--results", "record/all.json", "--budget", "1", "--jobs", "2"])
    assert world.began == [(DFC, 0, "")] * 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert [line.split(" in '")[0] for line in lines] == ["left out: CIFAR-100 is not", "left out: No labels"]


def test_a_finished_run_that_nobody_recorded_is_recorded(world):
    world.call()
    Path("record/all.json").unlink()
    assert len(world.call()) == 2
    assert len(world.began) == 2


class Stop(Callback):
    """Does what the end of a budget does, after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@needs_command_line
def test_a_dry_run_that_is_stopped_goes_on_as_if_it_was_not(monkeypatch):
    """The very commands, in this process."""
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
    summaries = []
    for name, steps in (("whole", []), ("parts", [3])):
        run = RunMaker(Path(name), Path("data"), toy=True).make(MASKED, 0)
        run.folder.mkdir(parents=True)
        run.prepare()
        for step in steps:
            with pytest.raises(SystemExit):
                _run(run.command()[3:], lambda trainer, step=step: trainer.callbacks.append(Stop(step)))
            assert run.checkpoint().name == "stopped.ckpt"
            assert torch.load(run.checkpoint(), weights_only=True)["global_step"] == step
            assert not run.job.done
        trainer = _run(run.command()[3:], None).trainer
        (mask,) = [one for one in trainer.callbacks if type(one).__name__ == "MaskRefresh"]
        assert (mask.ratio, trainer.global_step, type(trainer.datamodule).__name__) == (0.3, 4, "MadeUpCIFAR10")
        assert not list(run.folder.rglob("stopped.ckpt"))
        summaries.append(json.loads((run.folder / "summary.json").read_text()))
    assert summaries[0] == summaries[1]
    assert len(summaries[0]["epochs"]) == 2


@needs_command_line
@pytest.mark.slow
def test_a_dry_run_of_what_is_due(folder, capsys):
    """In processes of their own; the first call is stopped by its budget."""
    more = ["--", "--trainer.max_epochs=500", "--trainer.check_val_every_n_epoch=100"]
    main(["DCM, table 1", *CELLS, "--toy", "--jobs", "2", "--budget", "1", *more])
    assert capsys.readouterr().out.count("stopped") == 2
    for table in (
        ["DCM, table 1", *CELLS],
        ["gss/cifar10/ssl", "--cells", "worse"],
        ["DCM, table 2", "--cells", "CIFAR-100 / SED-DFC / symmetric 20"],
    ):
        main([*table, "--toy", "--jobs", "2"])
    assert capsys.readouterr().out.count("done: ") == 4
    main(["DCM, table 1", *CELLS, "--toy"])
    assert "2 runs, 0 of them to do" in capsys.readouterr().out
    assert len(list(folder.rglob("summary.json"))) == 4


def recorded(recipe, values, ratio=None, arguments="--data.noise.rate 0.8", **metrics):
    figures = {"best": 0.0, "last": 0.0, "average": 0.0}
    return {
        f"{recipe} {arguments} {ratio} {seed}": {
            "recipe": recipe,
            "arguments": arguments,
            "ratio": ratio,
            "options": "",
            "metrics": {"test/acc": {**figures, **{name: value}}},
            "device": "a GPU",
        }
        for name in [metrics.get("epoch", "average")]
        for seed, value in enumerate(values)
    }


class TestPage:
    def test_it_is_made_of_the_record(self):
        page = results.PAGE.read_text()
        assert results.rendered(page, results.recorded()) == page, "python -m docs.results"

    def test_verdicts_by_hand(self):
        runs = {
            **recorded(DFC, [0.64, 0.6376], ratio=0.5),  # 63.88: 0.90 above, within a point
            **recorded(DFC, [0.6488], ratio=0.3),  # 1.90 above: two deviations of 0.95
            **recorded("dcm/cifar10/apl-dfc", [0.5394], ratio=0.7),  # 3.05 below, more than twice 1.52
        }
        text = results.sections(runs)["tables"]
        cnn = "| CIFAR-10, 8-layer CNN |"
        rest = "symmetric 80 | mean of last 10 |"
        assert f"{cnn} ANL-DFC, ratio 0.3 | {rest} 62.98±0.95 | 64.88 | +1.90 | reproduced | 1 | a GPU |" in text
        assert f"{cnn} ANL-DFC, ratio 0.5 | {rest} 62.98±0.95 | 63.88 ± 0.17 | +0.90 | reproduced | 2 | a GPU |" in text
        assert f"{cnn} APL-DFC, ratio 0.7 | {rest} 56.99±1.52 | 53.94 | -3.05 | not reproduced | 1 | a GPU |" in text
        assert "| 63.93 | 63.88 ± 0.17 | -0.05 | reproduced |" in text  # the ablation's average, of the same runs
        assert "| best | 65.19 | 0.00 " in text
        assert not [line for line in text.splitlines() if "|  |" in line or "| - |" in line]

    def test_it_says_what_is_missing(self):
        before, after = (results.missing(runs) for runs in ({}, recorded("dal/cifar10", [0.7])))
        assert "; DAL, table 3 (104);" in before
        assert before.replace("DAL, table 2 (104)", "DAL, table 2 (103 of 104)") == after
        assert "; gss/cifar10 (2); " in before
        assert before.count("\n") == 1

    def test_what_no_table_has_stands_apart(self):
        runs = recorded("gss/cifar10", [0.9, 0.92], arguments="", epoch="last")
        assert "| `gss/cifar10` | as in the recipe | 91.00 ± 1.41 | 0.00 ± 0.00 |" in results.sections(runs)["own"]
        assert results.sections(runs)["tables"] == "None has been run.\n"
