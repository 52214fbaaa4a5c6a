"""A checkpoint that an exception has written goes on at the batch that broke, and ends as the uninterrupted run."""

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import TensorDataset

from lightning_noisy.callbacks import (
    SELC,
    ConfidenceTracker,
    LossMemory,
    MaskRefresh,
    MaskTracker,
    ParameterSchedule,
    RunSummary,
    StepSeed,
)
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.state import RunDriver
from lightning_noisy.state.interruption import Interruption
from tests.foreign import ForeignModule, make_tensors, make_trainer, make_validation_loader
from tests.small import assert_same

EPOCHS, BATCHES = 3, 8


class BrokenError(Exception):
    pass


class Module(ForeignModule):
    """Breaks where it is told to, once."""

    def __init__(self, place=None, step=None):
        super().__init__(dropout=0.3)
        self.criterion = EarlyLearningRegularization(lam=3.0, momentum=0.7)
        self.place, self.step = place, step

    def training_step(self, batch, batch_idx):
        x, target, index = batch
        loss = self.criterion(self(x), target, index=index)
        self.break_in("training_step")
        return loss

    def validation_step(self, batch, batch_idx):
        if batch_idx == 1:
            self.break_in("validation_step")
        logits = self(batch[0])
        self.log("val/acc", (logits.argmax(dim=1) == batch[1]).float().mean())

    def on_validation_start(self):
        self.break_in("on_validation_start")

    def on_before_backward(self, loss):
        self.break_in("on_before_backward")

    def on_after_backward(self):
        self.break_in("on_after_backward")

    def on_before_optimizer_step(self, optimizer):
        self.break_in("on_before_optimizer_step")

    def optimizer_step(self, epoch, batch_idx, optimizer, closure):
        closure()
        self.break_in("optimizer_step")
        super().optimizer_step(epoch, batch_idx, optimizer, lambda: None)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.break_in("on_train_batch_end")

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            self.break_in("on_after_batch_transfer")
        return batch

    def break_in(self, place):
        if not self.trainer.sanity_checking and (place, self.trainer.global_step) == (self.place, self.step):
            raise BrokenError(place)


class BreakingSet(TensorDataset):
    module = None

    def __getitem__(self, index):
        if self.module is not None:
            self.module.break_in("loading")
        return super().__getitem__(index)


class Late(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.break_in("later callback")


def run(folder, place=None, step=None, ckpt_path=None, module=None, extra=(), **options):
    x, noisy, _ = make_tensors(64)
    if module is None:
        torch.manual_seed(0)
        module = Module(place, step)
    dataset = BreakingSet(x, noisy)
    dataset.module = module
    train_set = IndexedDataset(dataset)
    loader = ResumableLoader(train_set, batch_size=8, sampler=EpochSampler(train_set, seed=3))
    callbacks = [
        StepSeed(1),
        MaskRefresh("classifier", ratio=0.5),
        MaskTracker("classifier"),
        SELC(momentum=0.7, warmup_epochs=1),
        ConfidenceTracker(),
        LossMemory(),
        ParameterSchedule("criterion.lam", 0.0, 3.0, interval="step"),
        RunSummary(metric=("val/acc",)),
        Late(),
        *extra,
        ModelCheckpoint(folder, save_last=True),
        OnExceptionCheckpoint(folder),
    ]
    logger = CSVLogger(folder, name=None, version="logs")
    trainer = make_trainer(folder, callbacks, EPOCHS, logger=logger, enable_checkpointing=True, **options)
    trainer.fit(module, loader, make_validation_loader(), ckpt_path=ckpt_path)
    return trainer, module


def outcome(trainer, module):
    dump = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    kept = {name: state for name, state in dump["callbacks"].items() if "ModelCheckpoint" not in name}
    counts = {name: dump["loops"]["fit_loop"][f"epoch_loop.{name}"] for name in ("batch_progress", "state_dict")}
    summary = json.loads(Path(trainer.log_dir, "summary.json").read_text())
    return {"weights": dump["state_dict"], "optimizer": dump["optimizer_states"], **kept, **counts, "summary": summary}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return outcome(*run(tmp_path_factory.mktemp("whole")))


def resumed(folder, place, step, **options):
    with pytest.raises(BrokenError):
        run(folder, place, step, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer, module = run(folder, ckpt_path=folder / "on_exception.ckpt", **options)
    assert (trainer.global_step, trainer.current_epoch) == (EPOCHS * BATCHES, EPOCHS)
    return trainer, module, [str(one.message) for one in caught if "written inside batch" in str(one.message)]


INSIDE = ("training_step", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "optimizer_step")
BETWEEN = ("loading", "on_after_batch_transfer", "later callback", "on_train_batch_end")
QUICK = [
    *((place, 20) for place in (*INSIDE, *BETWEEN)),
    ("training_step", 0),
    ("loading", 8),
    ("on_after_backward", 23),
]
OTHERS = [(place, step) for place in (*INSIDE, *BETWEEN) for step in (0, 3, 8, 23) if (place, step) not in QUICK]


@pytest.mark.parametrize(("place", "step"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in OTHERS)])
def test_the_resumed_run_equals_the_uninterrupted_one(tmp_path, whole, place, step):
    after = place in BETWEEN[2:]  # the step has been counted; the very last one leaves nothing to do but validation
    trainer, module, said = resumed(tmp_path, place, min(step + 1, 22) if after else step)
    assert_same(whole, outcome(trainer, module))
    assert len(said) == (place in INSIDE)
    if said and step >= BATCHES:
        assert said[0].startswith(
            f"The checkpoint was written inside batch {step % BATCHES} of epoch {step // BATCHES}"
        )
        assert said[0].endswith(f"an exact checkpoint is {tmp_path / 'last.ckpt'}.")


@pytest.mark.parametrize("place", ["validation_step", "on_validation_start"])
def test_a_validation_that_broke_is_run_again(tmp_path, whole, place):
    trainer, module, said = resumed(tmp_path, place, 16)
    assert_same(whole["summary"], outcome(trainer, module)["summary"])
    assert_same(whole["weights"], module.state_dict())
    assert not said


def test_a_resumed_run_can_break_again(tmp_path, whole):
    """Lightning's counts of all epochs would still hold the batch that broke first."""
    path = None
    for place, step in (("on_before_backward", 3), ("later callback", 6), ("training_step", 20)):
        with pytest.raises(BrokenError):
            run(tmp_path, place, step, ckpt_path=path)
        path = tmp_path / "on_exception.ckpt"
    assert_same(whole, outcome(*run(tmp_path, ckpt_path=path)))


def test_what_a_broken_step_has_written_is_taken_back_at_once(tmp_path):
    rows = {}

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 9:
                rows.update({key: copy.deepcopy(section.state_dict()) for key, section in sections(trainer).items()})

        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "inside.ckpt")
            assert_same(rows, {key: section.state_dict() for key, section in sections(trainer).items()})

    def sections(trainer):
        return RunDriver.of(trainer).sections

    with pytest.raises(BrokenError):
        run(tmp_path, "on_after_backward", 9, extra=[Look()])
    saved = torch.load(tmp_path / "inside.ckpt", weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    assert_same(rows, saved)
    assert {"loss criterion", "MaskTracker{'head': 'classifier'}"} < set(rows)


def test_a_checkpoint_inside_a_step_that_goes_on_holds_what_was_before_it(tmp_path, whole):
    class Save(Module):
        def on_after_backward(self):
            if self.trainer.global_step == 11:
                self.trainer.save_checkpoint(tmp_path / "inside.ckpt")

    torch.manual_seed(0)
    assert_same(whole, outcome(*run(tmp_path, module=Save())))
    assert_same(whole, outcome(*run(tmp_path, ckpt_path=tmp_path / "inside.ckpt")))


@pytest.mark.parametrize("inside", [True, False])
def test_several_processes_cannot_share_once_one_has_failed(tmp_path, inside):
    """The rows of the other processes since the last pause are in no checkpoint that follows."""
    batch = SimpleNamespace(epoch=1, batch_idx=4) if inside else None
    trainer = make_trainer(tmp_path)
    failed, resumed = Interruption(), Interruption()
    with patch.object(type(trainer), "world_size", 2):
        failed.fail(trainer, batch)
    resumed.load_state_dict(failed.state_dict())
    said = (
        r"inside batch \d of epoch \d, .* what other processes had not shared is lost; an exact checkpoint is one that"
    )
    with pytest.warns(UserWarning, match=said):
        resumed.take_back(trainer)


# Several loaders


class Seen(ForeignModule):
    def __init__(self, stop=None):
        super().__init__()
        self.stop, self.seen = stop, []

    def training_step(self, batch, batch_idx):
        if batch_idx == self.stop:
            raise BrokenError
        self.seen.append({name: None if part is None else part[2].tolist() for name, part in batch.items()})
        return self.classifier(self.body(batch["long"][0])).sum()


@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7])
def test_a_shorter_loader_goes_on_where_it_was(tmp_path, mode, stop):
    """Loaders of 8 and 3 batches; without a callback of this package, with a checkpoint and with an exception."""

    def fit(module, ckpt_path=None, callbacks=()):
        x, noisy, _ = make_tensors(24)
        sets = {
            "long": IndexedDataset(TensorDataset(x, noisy)),
            "short": IndexedDataset(TensorDataset(x[:9], noisy[:9])),
        }
        loaders = {
            name: ResumableLoader(part, batch_size=3, sampler=EpochSampler(part, seed=3)) for name, part in sets.items()
        }
        trainer = make_trainer(tmp_path, callbacks, 2, enable_checkpointing=bool(callbacks))
        trainer.fit(module, CombinedLoader(loaders, mode), ckpt_path=ckpt_path)
        return module.seen

    if mode == "min_size":
        stop = min(stop, 2)
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(Seen(), callbacks=[every])
    assert whole[stop:] == fit(Seen(), tmp_path / f"step={stop}.ckpt")
    with pytest.raises(BrokenError):
        fit(Seen(stop), callbacks=[OnExceptionCheckpoint(tmp_path)])
    assert whole[stop:] == fit(Seen(), tmp_path / "on_exception.ckpt")
