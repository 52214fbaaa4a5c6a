"""Whatever stands in a configuration or a file of data: one line or a run of just that, and nothing left behind."""

import copy
import io
import math
import random
import shutil
import string
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

from lightning_noisy.cli import main
from tests._dummies import isolate

CONFIG = """
trainer:
  max_epochs: 1
  accelerator: cpu
  devices: 1
  limit_train_batches: 1
  limit_val_batches: 1
  num_sanity_val_steps: 0
  gradient_clip_val: 5.0
  accumulate_grad_batches: 1
  check_val_every_n_epoch: 1
  log_every_n_steps: 10
  enable_progress_bar: false
  enable_model_summary: false
  precision: 32-true
  callbacks:
    - class_path: lightning_noisy.callbacks.SELC
      init_args: {momentum: 0.9, warmup_epochs: 0}
    - class_path: lightning_noisy.callbacks.MaskRefresh
      init_args: {ratio: 0.5, score: magnitude}
    - class_path: lightning_noisy.callbacks.LabelWriter
      init_args: {path: labels.npz}
model:
  class_path: lightning_noisy.NoisyLabelModule
  init_args:
    num_classes: 10
    backbone:
      class_path: lightning_noisy.networks.SmallCNN
      init_args: {in_channels: 1, width: 2, num_features: 4, dropout: 0.1}
    head:
      class_path: lightning_noisy.heads.LinearHead
    loss:
      class_path: lightning_noisy.losses.NoiseAttentionLoss
      init_args: {lam: 0.5}
    optimizer:
      class_path: torch.optim.SGD
      init_args: {lr: 0.05, momentum: 0.9, weight_decay: 0.001, nesterov: true}
    lr_scheduler:
      class_path: torch.optim.lr_scheduler.CosineAnnealingLR
      init_args: {T_max: 5, eta_min: 0.0}
data:
  class_path: lightning_noisy.data.DigitsDataModule
  init_args:
    batch_size: 8
    num_workers: 0
    val_fraction: 0.1
    noisy_val: true
    seed: 3
    noise:
      class_path: lightning_noisy.data.SymmetricNoise
      init_args: {rate: 0.4, exact: false}
seed_everything: 1
"""
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**40, 2**70, -0.5, 0.3, 1.5, 1e30, math.nan, math.inf),
    *("", "x", "1", "none", "\0", "é", "../x", "/proc/x.npz", "NaN", "1e3", "${a}", "SmallCNN", "torch.nn.Linear"),
    *([], [1], [None], ["x"], [[0.5, 0.5], [0.5, 0.5]], {}, {"a": 1}, {"class_path": "SmallCNN"}, {"class_path": 5}),
    *({"class_path": "os.system", "init_args": {"command": "touch hacked"}}, {"init_args": {}}, {"class_path": None}),
    {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "hacked"]}},
    {"class_path": "subprocess.call", "init_args": {"args": "touch hacked", "shell": True}},
)
NUMBERS = (
    -1,
    0,
    1,
    2,
    7,
    2**40,
    2**70,
    -0.5,
    0.3,
    0.999,
    1.5,
    1e30,
    -1e30,
    1e-300,
    math.nan,
    math.inf,
    -math.inf,
    None,
)
WORDS = (
    *("std", "signed", "torch.nn.CrossEntropyLoss", "torch.nn.NLLLoss", "torch.nn.MSELoss", "GeneralizedCrossEntropy"),
    *(
        "lightning_noisy.heads.KANHead",
        "lightning_noisy.networks.MLP",
        "lightning_noisy.networks.CNN9",
        "torch.optim.Adam",
    ),
    *("lightning_noisy.data.PairFlipNoise", "lightning_noisy.data.FileNoise", "torch.optim.LBFGS", "gpu", "16-mixed"),
    *(
        "lightning_noisy.callbacks.GradientSwitching",
        "lightning_noisy.callbacks.CDR",
        "lightning_noisy.callbacks.MixUp",
    ),
    *("torch.optim.lr_scheduler.OneCycleLR", "lightning_noisy.data.OpenSetNoise", "a/b/c.npz", "lightning.Callback"),
)
LASTS_OR_SPAWNS = ("devices", "max_epochs", "num_workers", "accelerator", "limit_train_batches", "batch_size")


def places(node, path=()):
    """All keys of a configuration, as paths."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def parent_of(config, path):
    for key in path[:-1]:
        config = config[key]
    return config


def misspelt(key, rng):
    at = rng.randrange(len(key))
    return rng.choice([key[:at] + key[at + 1 :], key[:at] + rng.choice(string.ascii_lowercase) + key[at:], key.upper()])


def another_value(rng):
    config = yaml.safe_load(CONFIG)
    path = rng.choice(list(places(config)))
    parent = parent_of(config, path)
    likely = NUMBERS if isinstance(parent[path[-1]], (int, float)) else WORDS
    value = copy.deepcopy(rng.choice(VALUES if rng.random() < 0.3 else likely))
    parent[path[-1]] = value
    return yaml.safe_dump(config, allow_unicode=True), path, value


def another_name(rng):
    config = yaml.safe_load(CONFIG)
    path = rng.choice([path for path in places(config) if isinstance(path[-1], str)])
    parent = parent_of(config, path)
    name = misspelt(path[-1], rng)
    if name in parent or not name:
        return another_name(rng)
    parent[name] = parent.pop(path[-1])
    return yaml.safe_dump(config), path, name


def another_text(rng):
    text = CONFIG.encode()
    at = rng.randrange(len(text))
    pieces = [
        b"\t",
        b"\xe9",
        b"\0",
        b"&a *a",
        b"{",
        b"]",
        b": ",
        b"\n- ",
        b"!!python/name:os.system ",
        b"<<: *x",
        b"\n",
    ]
    cut, put = rng.choice([(0, rng.choice(pieces)), (rng.randrange(30), b""), (len(text), b"")])
    return text[:at] + put + text[at + cut :], (), None


@contextmanager
def stubbed_fit(monkeypatch, wanted):
    with monkeypatch.context() as patched:
        if wanted:
            patched.setattr(Trainer, "fit", lambda self, *_, **__: None)
        yield


def outcome(arguments):
    """The CLI object of a run, or the line with which it was refused."""
    errors = io.StringIO()
    code = 0
    try:
        with redirect_stderr(errors), redirect_stdout(io.StringIO()):
            return main(["fit", *arguments])
    except SystemExit as stop:
        code = stop.code
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("lightning-noisy: ")]
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("lightning-noisy: error: ")
    assert len(lines[0]) < 700
    assert errors.getvalue().rstrip().splitlines()[-1] == lines[0]
    return lines[0]


def files():
    return {str(path) for path in Path().rglob("*")}


def try_out(text, stub, monkeypatch):
    """Run a configuration in the working directory, and see that a refusal leaves nothing behind."""
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = files()
    with stubbed_fit(monkeypatch, stub):
        found = outcome(["--config", "c.yaml"])
    assert not Path("hacked").exists(), "a command was run"
    if isinstance(found, str) and "not finite" not in found:
        assert files() == before
    shutil.rmtree("runs", ignore_errors=True)
    return found


def value_at(config, path):
    for key in path:
        config = config[key]
    return config.as_dict() if hasattr(config, "as_dict") else config


def same(asked, got):
    """Whether what counts is what was asked for, as far as it is a plain value."""
    if isinstance(asked, (dict, list)) or isinstance(got, dict) or asked is None:
        return True
    read = yaml.safe_load(asked) if isinstance(asked, str) else asked
    return got == read or str(got) == str(asked) or (got != got and read != read)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(
        "lightning_noisy.cli.command_line.LightningCLI.subcommands",
        staticmethod(lambda: {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}),
    )


def check_values(seeds, monkeypatch, stub=True):
    for seed in seeds:
        text, path, value = another_value(random.Random(seed))
        try:
            found = try_out(text, stub or path[-1] in LASTS_OR_SPAWNS, monkeypatch)
            if not isinstance(found, str):
                assert same(value, value_at(found.config.fit, path)), "something else was accepted"
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {path} = {value!r}") from error


def check_names(seeds, monkeypatch):
    for seed in seeds:
        text, path, name = another_name(random.Random(seed))
        assert isinstance(try_out(text, True, monkeypatch), str), f"seed {seed}: {path} as {name!r}"


def check_texts(seeds, monkeypatch):
    for seed in seeds:
        text, _, _ = another_text(random.Random(seed))
        try:
            try_out(text, True, monkeypatch)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {text!r}") from error


CHECKS = {"values": check_values, "names": check_names, "texts": check_texts}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_few_configurations(monkeypatch, check):
    check(range(8), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("check", "count"), [(check_names, 60), (check_texts, 80)], ids=["names", "texts"])
def test_many_configurations(monkeypatch, check, count):
    check(range(100, 100 + count), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_values_as_far_as_they_train(monkeypatch, part):
    check_values(range(1000 + 50 * part, 1050 + 50 * part), monkeypatch, stub=False)


def test_commands_are_no_factories(monkeypatch):
    config = yaml.safe_load(CONFIG)
    for name, command in [
        ("os.system", {"command": "touch hacked"}),
        ("subprocess.call", {"args": ["touch", "hacked"]}),
    ]:
        for part in ("head", "optimizer", "lr_scheduler"):
            config["model"]["init_args"][part] = {"class_path": name, "init_args": command}
            refused = try_out(yaml.safe_dump(config), True, monkeypatch)
            assert f"`model.{part}` to be a class, or a function whose annotation says what it returns" in refused
            config = yaml.safe_load(CONFIG)
