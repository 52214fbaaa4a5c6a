"""No checkpoint is taken that does not belong to the run: one line, and nothing left behind."""

import copy
import os
import random
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import SELC, ConfidenceTracker, MaskRefresh, MaskTracker, RunSummary, StepSeed
from lightning_noisy.checkpoints import structure
from lightning_noisy.checkpoints.check import check_file
from lightning_noisy.cli.checkpoint import check_resume
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import CosineHead, LinearHead
from lightning_noisy.networks import MLP
from lightning_noisy.state import Section
from tests._dummies import command_line_error, isolate, quiet
from tests.foreign import make_tensors, make_trainer, make_validation_loader
from tests.small import assert_same
from tests.test_cli import CONFIG


def make_module(width=6, num_classes=4, head=LinearHead, optimizer=torch.optim.Adam, scheduler=True, **options):
    step = torch.optim.lr_scheduler.StepLR
    torch.manual_seed(0)
    return NoisyLabelModule(
        MLP(6, (width,)),
        head,
        torch.nn.CrossEntropyLoss(),
        num_classes,
        optimizer=lambda parameters: optimizer(parameters, lr=0.1, **options),
        lr_scheduler=(lambda made: step(made, 1)) if scheduler else None,
    )


def make_parts(folder, max_epochs=3, extra=()):
    callbacks = [StepSeed(1), SELC(), ConfidenceTracker(), MaskRefresh(ratio=0.5), MaskTracker(), RunSummary(), *extra]
    return make_trainer(
        folder, callbacks, max_epochs, enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in extra)
    )


def make_training_loader(num_samples=24):
    x, noisy, _ = make_tensors(num_samples)
    train_set = IndexedDataset(TensorDataset(x, noisy))
    return ResumableLoader(train_set, batch_size=8, sampler=EpochSampler(train_set, seed=3))


def fit(folder, module, ckpt_path=None, **options):
    trainer = make_parts(folder, **options)
    trainer.fit(module, make_training_loader(), make_validation_loader(), ckpt_path=ckpt_path)
    return {"weights": module.state_dict(), "section": module.section.state_dict()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoint of a batch inside the second epoch, as a file."""
    folder = tmp_path_factory.mktemp("saved")
    every = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(folder, make_module(), max_epochs=2, extra=[every, EarlyStopping("val/acc", patience=9)])
    return folder / "step=5.ckpt"


@pytest.fixture(scope="module")
def whole(saved):
    return torch.load(saved, weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of the command line."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, folder)
        Path("config.yaml").write_text(CONFIG)
        return Path(quiet("fit", "config.yaml").trainer.checkpoint_callback.best_model_path).resolve()


def refusal(path, module=None, command="fit", trainer=None, folder=None):
    """The line with which a checkpoint is refused, None where it is taken."""
    trainer = trainer or make_parts(folder or path.parent, extra=[EarlyStopping("val/acc", patience=9)])
    try:
        check_resume(trainer, module or make_module(), str(path), command, None)
    except NoisyLabelError as error:
        return str(error)
    return None


def write(folder, content):
    path = folder / "mutated.ckpt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_of_the_run_is_taken(saved, command):
    assert refusal(saved, command=command) is None


class Chooses(Callback):
    """Selects inside an epoch, for the next one."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (0, 1):
            trainer.train_dataloader.sampler.arrange(range(23, 7, -1))
        if (trainer.current_epoch, batch_idx) == (1, 0):
            trainer.train_dataloader.sampler.select(range(8))


@pytest.mark.parametrize("step", [2, 4])
def test_a_selection_that_waits_for_the_next_epoch_is_taken(tmp_path, step):
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(tmp_path, make_module(), extra=[Chooses(), every])
    path = tmp_path / f"step={step}.ckpt"
    (loader,) = torch.load(path, weights_only=True)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert len(loader["waiting"]) == 1
    assert_same(fit(tmp_path, make_module(), path, extra=[Chooses()]), whole)
    broken = torch.load(path, weights_only=True)
    broken["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["waiting"] = [torch.arange(3)]
    with pytest.raises(NoisyLabelError, match="the selection of a loader is no list of positions"):
        fit(tmp_path, make_module(), write(tmp_path, broken))


def test_what_is_looked_for_is_what_is_saved():
    assert set(structure._POSITION) == set(make_training_loader().state_dict())
    section = Section("SELC").state_dict()
    assert {name: set(part) for name, part in structure._SECTION.items()} == {n: set(p) for n, p in section.items()}


FILES = {
    "cut": lambda data: data[: len(data) // 2],
    "head": lambda data: data[:10],
    "empty": lambda data: b"",
    "text": lambda data: b"epoch: 3\n",
    "picture": lambda data: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "archive": lambda data: b"PK\x05\x06" + bytes(18),
    "flipped": lambda data: data[:2000] + bytes(255 - value for value in data[2000:9000]) + data[9000:],
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint(tmp_path, saved, kind):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(FILES[kind](saved.read_bytes()))
    assert re.search("cannot be read .*take an earlier one|an empty file; take", refusal(path))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    signal.alarm(60)  # reading a pipe would never end
    for path, said in [("pipe.ckpt", "no regular file"), (".", "a folder; name the file"), ("x.ckpt", "no such file")]:
        with pytest.raises(NoisyLabelError, match=said):
            check_file(tmp_path / path)
        assert said in refusal(tmp_path / path, folder=tmp_path)
    signal.alarm(0)
    for path in (None, "last", "best", "s3://bucket/a.ckpt"):
        check_file(path)


OTHERS = {
    "classes": ({"num_classes": 5}, r"`network.head.weight` has shape \(4, 6\), in this run \(5, 6\)"),
    "width": ({"width": 7}, r"has shape \(6, 6\), in this run \(7, 6\)"),
    "head": ({"head": CosineHead}, r"it has no `|is no part of this model"),
    "optimizer": ({"optimizer": torch.optim.SGD}, "its optimizer is not the SGD of this run"),
    "decay": ({"optimizer": torch.optim.AdamW}, "its optimizer is not the AdamW of this run: its `decoupled"),
    "scheduler": ({"scheduler": False}, "1 optimizers and 1 schedulers, this run 1 and 0"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_checkpoint_of_another_model(saved, kind):
    options, said = OTHERS[kind]
    assert re.search(said, refusal(saved, make_module(**options)))


CONTENTS = {
    "a tensor": (lambda content: torch.ones(2), "it holds a Tensor"),
    "a state dict": (lambda content: content["state_dict"], "it is a state dict alone"),
    "weights alone": (
        lambda content: {
            key: content[key] for key in ("epoch", "global_step", "state_dict", "loops", "pytorch-lightning_version")
        },
        "it holds weights without `optimizer_states`; training goes on from",
    ),
    "without our state": (lambda content: content["callbacks"].pop("lightning_noisy") and content, "no state of light"),
    "beyond the end": (lambda content: {**content, "loops": later(content["loops"]), "epoch": 9}, "raise max_epochs=3"),
}


def later(loops):
    loops["fit_loop"]["epoch_progress"]["current"].update(
        dict.fromkeys(("ready", "started"), 10), processed=9, completed=9
    )
    loops["fit_loop"]["state_dict"]["combined_loader"][0]["epoch"] = 9
    return loops


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_checkpoint_without_what_a_run_needs(tmp_path, whole, kind):
    change, said = CONTENTS[kind]
    path = write(tmp_path, change(copy.deepcopy(whole)))
    assert said in refusal(path)
    if kind == "weights alone":
        assert refusal(path, command="test") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["fit", "--model.num_classes", "11"],
            r"has shape \(10, 16\), in this run \(11, 16\); use the number of classes",
        ),
        (["fit", "--model.optimizer", "Adam"], "its optimizer is not the Adam of this run"),
        (["test", "--model.backbone.width", "6"], r"has shape \(4, 1, 3, 3\), in this run \(6, 1, 3, 3\)"),
    ],
)
def test_the_command_line_asks_before_it_writes(monkeypatch, tmp_path, capsys, trained, arguments, said):
    isolate(monkeypatch, tmp_path)
    Path("config.yaml").write_text(CONFIG)
    command, *options = arguments
    message = command_line_error(capsys, "config.yaml", "--ckpt_path", trained, *options, subcommand=command)
    assert re.search(said, message)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


# From Python


def test_a_trainer_without_the_command_line_asks_as_well(tmp_path, saved, whole):
    with pytest.raises(NoisyLabelError, match="its optimizer is not the SGD of this run"):
        fit(tmp_path, make_module(optimizer=torch.optim.SGD), saved)
    broken = copy.deepcopy(whole)
    broken["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = -1
    with pytest.raises(
        NoisyLabelError, match=r"its position is impossible: `fit_loop.epoch_progress.current` has 2 begun"
    ):
        fit(tmp_path, make_module(), write(tmp_path, broken))
    broken = copy.deepcopy(whole)
    del broken["callbacks"]["lightning_noisy"]["sections"]["SELC{'criterion': None}"]["stores"]
    with pytest.raises(NoisyLabelError, match=r"what its run has kept is not whole: `SELC.*` has no `stores`"):
        fit(tmp_path, make_module(), write(tmp_path, broken))
    broken = copy.deepcopy(whole)
    del broken["callbacks"]["lightning_noisy"]["sections"]["SELC{'criterion': None}"]
    with pytest.warns(UserWarning, match=r"has no state of SELC.*, which begins without a past"):
        fit(tmp_path, make_module(), write(tmp_path, broken))


# Mutations

REPLACEMENTS = (None, "text", -1, 3.5, [], {}, True, torch.ones(3, 2), 10**6)


def places(content, path=()):
    """Every place in a checkpoint, from the top."""
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutate(content, place, draw):
    """Delete or replace what is at a place; what nobody could tell (a number by another one) is drawn again."""
    content = copy.deepcopy(content)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    before, free = parent[place[-1]], {"stores", "state"} & set(place[:-1] if place[0] != "loops" else ())
    optional = place[-2:-1] == ("sections",) or place[-1] == "combined_loader"  # as of a run without them
    if draw.random() < 0.4 and not free and not optional:
        del parent[place[-1]]
        return content
    number = isinstance(before, int | float) or (isinstance(before, torch.Tensor) and before.ndim == 0)
    values = [value for value in REPLACEMENTS if type(value) is not type(before)]
    if number and place[0] != "loops":
        values = [value for value in values if not isinstance(value, int | float)]
    parent[place[-1]] = draw.choice(values)
    return content


@pytest.mark.parametrize("seed", range(4))
def test_mutated_checkpoints(tmp_path, whole, saved, seed):
    """One that is taken leads to the very run that the whole one leads to."""
    draw = random.Random(seed)
    stop = [EarlyStopping("val/acc", patience=9)]
    expected = fit(tmp_path, make_module(), saved, extra=stop)
    top = [place for place in places(whole) if len(place) < 4]
    deep = list(places(whole))
    taken, module, trainer = 0, make_module(), make_parts(tmp_path, extra=stop)
    for number in range(25):
        place = draw.choice(top if number % 2 else deep)
        path = write(tmp_path, mutate(whole, place, draw))
        if refusal(path, module, trainer=trainer) is None:
            taken += 1
            with suppress(NoisyLabelError):  # of other data, which are not asked before a fit
                assert_same(expected, fit(tmp_path, make_module(), path, extra=[EarlyStopping("val/acc", patience=9)]))
    assert [path.name for path in tmp_path.iterdir()] == ["mutated.ckpt"]
    assert taken < 15
