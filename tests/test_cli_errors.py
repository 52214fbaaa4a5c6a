"""What is said when a run fails rests on where the error arose."""

import json
import re
import sys
from pathlib import Path

import pytest

from lightning_noisy.cli import main
from lightning_noisy.cli.errors import reason
from lightning_noisy.cli.private_api import first_of_the_processes
from lightning_noisy.data import digits
from tests._dummies import command_line_error, isolate, quiet, write_image
from tests.test_cli import CONFIG

MINE = """\
from lightning.pytorch import Callback
from torch import nn

class Backbone(nn.Module):
    num_features = 3

    def __init__(self, size: int = 3):
        super().__init__()
        if size == 7:
            raise KeyError("seven")
        if size == 8:
            open("nowhere/x")
        self.layer = nn.Linear(63, 3)

    def forward(self, images):
        return self.layer(images.flatten(1))

class Transform(nn.Module):
    def forward(self, image):
        return image.reshape(7, 7)

class AtStart(Callback):
    def on_train_start(self, trainer, pl_module):
        1 / 0

class Later(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        1 / 0
"""


NULL = "model: {init_args: {backbone: {init_args: {width: null}}}}"


@pytest.fixture(autouse=True)
def config(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """A module of the user's, which stands in the working directory."""
    (tmp_path / "users_own.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "users_own.py"
    sys.modules.pop("users_own", None)


def images(num_workers, transform):
    """Arguments of a run on two classes of photos."""
    for folder in ("train/a", "train/b"):
        write_image(Path("photos", folder, "0.png"))
    data = [
        "--data",
        "ImageFolderDataModule",
        "--data.root",
        "photos",
        "--data.image_size",
        8,
        "--data.views",
        "[strong]",
    ]
    return [
        *(*data, "--data.strong", transform, "--data.num_workers", num_workers),
        *("--model.num_classes", 2, "--model.backbone.in_channels", 3),
    ]


class TestInTheUsersOwnClass:
    @pytest.mark.parametrize(
        ("arguments", "line", "what"),
        [
            (["--model.backbone", "users_own.Backbone", "--model.backbone.size", "7"], 10, "KeyError.*: 'seven'"),
            (["--model.backbone", "users_own.Backbone", "--model.backbone.size", "8"], 12, "FileNotFoundError"),
            (["--model.backbone", "users_own.Backbone"], 16, r"RuntimeError.*shapes cannot be multiplied"),
            (["--trainer.callbacks", "users_own.AtStart"], 24, "ZeroDivisionError.*division by zero"),
        ],
        ids=["constructor", "file opened by it", "torch called by it", "callback"],
    )
    def test_file_and_line_are_named(self, config, capsys, mine, arguments, line, what):
        message = command_line_error(capsys, config, *arguments)
        assert message.partition(" in ")[2].startswith(f"'{mine}', line {line}: ")
        assert re.match(what, message)
        assert not Path("runs").exists()

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_also_in_a_worker(self, config, capsys, mine, num_workers):
        message = command_line_error(capsys, config, *images(num_workers, "users_own.Transform"))
        assert message.startswith(f"RuntimeError in '{mine}', line 20: ")
        assert message.endswith("shape '[7, 7]' is invalid for input of size 192 (`--debug` shows the traceback)")

    def test_after_the_first_step_the_traceback_and_the_folder_stay(self, config, capsys, mine):
        with pytest.raises(ZeroDivisionError):
            quiet("fit", config, "--trainer.callbacks", "users_own.Later")
        assert "a bug" not in capsys.readouterr().err
        assert Path("runs/run/version_0/config.yaml").exists()


class TestInALibraryCalledWithTheUsersValue:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--model.optimizer.lr", "-1"], "`model.optimizer` cannot be made as SGD(lr=-1.0): Invalid learning rate"),
            (
                ["--config", NULL],
                "Expected argument `model.backbone.width` to have a value, but got null: leave",
            ),
            (["--model.optimizer", "null"], "Expected argument `model.optimizer` to have a value, but got null"),
            (["--data.val_fraction", "null"], "Expected argument `data.val_fraction` to have a value, but got null"),
            (["--data.val_fraction", "nan"], "data.val_fraction: Expected a <class 'float'>. Got value: nan"),
            (["--data.val_fraction", ".nan"], "Expected argument `data.val_fraction` to be a number, but got nan."),
            (
                ["--model.lr_scheduler", "CosineAnnealingLR", "--model.lr_scheduler.T_max", "0"],
                "`model.lr_scheduler` (CosineAnnealingLR) fails at the end of the first epoch: integer modulo by zero",
            ),
            (
                ["--model.backbone.in_channels", "3"],
                "`model.backbone` (SmallCNN) cannot take a batch of shape (64, 1, 8, 8): Given groups=1, weight of",
            ),
            (
                ["--model.loss.reduction", "men"],
                "`model.loss` (CrossEntropyLoss) cannot take a batch of shape (64, 10): men is not a valid value",
            ),
            (
                ["--model.loss.reduction", "none", "--trainer.callbacks", "null"],
                "Expected the training loss to be a scalar, but got shape (64,): give the crit",
            ),
            (["--model.backbone.width", 2**40], "`model.backbone` cannot be made as SmallCNN(width=1099511627776, num"),
            (["--model.num_classes", 2**40], "Expected argument `num_classes` to be at most 16777216, but got 109951"),
            (
                ["--trainer.accelerator", "abacus"],
                "`trainer`: You selected an invalid accelerator name: `acc",
            ),
            (["--trainer.strategy", "dpp"], "`trainer`: You selected an invalid strategy name: `strategy='dpp'`."),
            (
                ["--trainer.accumulate_grad_batches", "0"],
                "Expected argument `trainer.accumulate_grad_batches` to be",
            ),
            (
                ["--trainer.gradient_clip_val", "-1"],
                "Expected argument `trainer.gradient_clip_val` to be a num",
            ),
            (
                ["--seed_everything", "-1"],
                "Expected argument `seed_everything` to be an int in [0, 4294967296)",
            ),
            (["--trainer.default_root_dir", "/proc/x", "--trainer.logger", "false"], "Cannot use '/proc/x': "),
            (
                ["--trainer.callbacks+=LabelWriter", "--trainer.callbacks.path", "/proc/x.npz"],
                "Cannot write '/pr",
            ),
        ],
        ids=lambda value: " ".join(map(str, value)).replace("--", "") if isinstance(value, list) else "",
    )
    def test_the_argument_is_named(self, config, capsys, arguments, expected):
        assert command_line_error(capsys, config, *arguments).startswith(expected)
        assert not Path("runs").exists()

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_a_transform_of_torchvision(self, config, capsys, num_workers):
        crop = "{class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 50}}"
        message = command_line_error(capsys, config, *images(num_workers, crop))
        assert message.startswith("A transform that `data` names or makes cannot take the images: ")
        assert "Required crop size (50, 50) is larger than input image size (8, 8)." in message

    def test_the_traceback_is_kept_on_demand(self, config, capsys):
        with pytest.raises(RuntimeError, match="Given groups=1"):
            quiet("fit", config, "--debug", "--model.backbone.in_channels", 3)
        printed = capsys.readouterr().err
        assert "error: `model.backbone` (SmallCNN) cannot take" in printed
        assert "a bug" not in printed
        assert not Path("runs").exists()


class TestInThisPackage:
    """Errors that nobody foresaw."""

    @pytest.mark.parametrize("broken", ["[][1]", "json.loads('{')"], ids=["here", "in a library called from here"])
    def test_it_is_called_a_bug(self, config, capsys, monkeypatch, broken):
        names = {"json": json}
        exec(compile(f"def load(*_):\n    return {broken}\n", digits.__file__, "exec"), names)
        monkeypatch.setattr(digits, "load_digits", names["load"])
        with pytest.raises((IndexError, json.JSONDecodeError)):
            quiet("fit", config)
        printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-noisy: ")]
        assert printed == ["lightning-noisy: this is a bug in lightning_noisy: please report it, with the traceback."]
        assert not Path("runs").exists()


class TestNames:
    def test_an_error_of_the_command_itself(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.argv", ["lightning-noisy"])
        with pytest.raises(SystemExit):
            main(["fit", "--config", "nowhere"])
        assert capsys.readouterr().err.startswith("lightning-noisy: error: Expected argument `config` to be a file or")


def ask_first(rank):
    return [first_of_the_processes(rank) for _ in range(2)]


def test_of_several_processes_one_speaks(pool):
    answers = [answer for asked in pool.run(ask_first) for answer in asked]
    assert sorted(answers) == [False, False, False, True]


def test_before_there_is_a_group_the_first_speaks():
    assert [first_of_the_processes(rank) for rank in (0, 1)] == [True, False]


def why(rank):
    """What a process says whose peer was killed, long after its start."""
    return reason(RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"), True)


def test_a_process_that_is_left_alone_says_so(pool):
    assert all(line.startswith("Another process of this run has ended") for line in pool.run(why))
    assert why(0) is None  # without a group it is another connection
