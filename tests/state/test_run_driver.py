"""What Lightning's hooks do to a run: every epoch is closed once, at its end, or late where a resume has skipped it."""

import copy
from types import SimpleNamespace

import pytest
import torch

from lightning_noisy.state import RunDriver, RunState, Section


class FakeTrainer:
    """Says which epoch it is, and keeps what is logged."""

    def __init__(self):
        self.current_epoch, self.global_step, self.world_size, self.log_every_n_steps = 0, 7, 1, 50
        self.callbacks, self.train_dataloader = [object()], None
        self.state = SimpleNamespace(fn=None)
        self.late, self.logged = [], []
        self.loggers = [SimpleNamespace(log_metrics=lambda metrics, step: self.late.append((metrics, step)))] * 2
        self.lightning_module = SimpleNamespace(
            log_dict=lambda metrics, sync_dist: self.logged.append((metrics, sync_dist))
        )

    def train(self, epoch, batches, ends=True):
        driver, module = self.callbacks[0], self.lightning_module
        driver._source = SimpleNamespace(of_now=lambda trainer, batch, batch_idx: {}, carried_by_one=False)
        self.current_epoch = epoch
        for batch_idx in range(batches):
            driver.on_train_batch_start(self, module, None, batch_idx)
            driver.on_train_batch_end(self, module, None, None, batch_idx)
        if ends:
            driver.on_train_epoch_end(self, module)


class Owner:
    """Counts how often it was asked for metrics."""

    def __init__(self, empty=(), key=None):
        self.section = Section("Owner", key, self.metrics, per_sample=False)
        self.asked = 0
        self.empty = empty

    def metrics(self):
        self.asked += 1
        return {} if self.asked in self.empty else {f"{self.section.key}/loss": self.asked / 10}


def running(*owners):
    trainer = FakeTrainer()
    run = RunDriver.of(trainer)
    for owner in owners:
        run.add(owner.section)
    return trainer, run


def test_the_driver_stands_first_and_is_one():
    trainer, run = running()
    assert RunDriver.of(trainer) is run
    assert [isinstance(callback, RunDriver) for callback in trainer.callbacks] == [True, False]


def test_an_epoch_is_closed_at_its_end():
    owner, other = Owner(), Owner(key="other")
    trainer, run = running(owner, other)
    for epoch in range(3):
        trainer.train(epoch, batches=4)
        assert run.open_epoch is None
    assert owner.asked == other.asked == 3
    assert owner.section.history == {epoch: {"Owner/loss": (epoch + 1) / 10} for epoch in range(3)}
    assert trainer.logged[1] == ({"Owner/loss": 0.2, "other/loss": 0.2}, True)
    assert not trainer.late


def test_an_epoch_without_a_batch_or_an_end_that_comes_twice_is_nothing():
    owner = Owner()
    trainer, _ = running(owner)
    trainer.train(0, batches=0)
    trainer.train(1, batches=1)
    trainer.train(1, batches=0)
    assert [metrics for metrics, _ in trainer.logged] == [{}, {"Owner/loss": 0.1}, {}]
    assert owner.section.history == {1: {"Owner/loss": 0.1}}


def test_a_skipped_end_is_made_up_for_before_the_next_epoch_begins():
    owner = Owner()
    trainer, run = running(owner)
    trainer.train(4, batches=2, ends=False)
    assert (owner.asked, run.open_epoch) == (0, 4)
    trainer.train(5, batches=2, ends=False)
    assert (owner.asked, run.open_epoch) == (1, 5)
    assert owner.section.history == {4: {"Owner/loss": 0.1}}
    rounded = pytest.approx(0.1, rel=1e-7)
    assert trainer.late == [({"Owner/loss": rounded, "epoch": 4}, 7)] * 2
    assert trainer.late[0][0]["Owner/loss"] != 0.1  # float32, as Lightning logs the others
    assert not trainer.logged


def test_no_metrics_leave_no_trace():
    owner = Owner(empty=(1, 2))
    trainer, _ = running(owner)
    trainer.train(0, batches=1)
    trainer.train(1, batches=1, ends=False)
    trainer.train(2, batches=1)
    assert owner.section.history == {2: {"Owner/loss": 0.3}}
    assert not trainer.late


def test_saved_state_is_a_snapshot_and_brings_the_open_epoch_back():
    owner, twin = Owner(), Owner()
    trainer, _ = running(owner)
    trainer.train(0, batches=1)
    trainer.train(1, batches=1, ends=False)
    state = trainer.callbacks[0].state_dict()
    owner.section.history[0]["Owner/loss"] = 9.0
    assert state["open_epoch"] == 1
    other, _ = running(twin)
    other.callbacks[0].load_state_dict(state)
    other.train(2, batches=1)
    assert twin.section.history == {epoch: {"Owner/loss": value} for epoch, value in [(0, 0.1), (1, 0.1), (2, 0.2)]}


def test_a_copy_asks_its_own_owner_and_a_driver_copies_no_run():
    owner = Owner()
    trainer, _ = running(owner)
    twin = copy.deepcopy(owner)
    other, _ = running(twin)
    other.train(0, batches=1)
    assert (owner.asked, twin.asked) == (0, 1)
    assert not owner.section.history
    assert copy.deepcopy(trainer.callbacks[0]).state.sections == {}


class Listener:
    """Notes what happens to it."""

    def __init__(self):
        self.seen = []

    def enter_batch(self, batch):
        self.seen.append(("enter", batch.batch_idx))

    def leave_batch(self):
        self.seen.append("leave")

    def end_batch(self):
        self.seen.append("end")

    def detach(self):
        self.seen.append("detach")


def trainer_in_fit(trainer):
    trainer.state, trainer.sanity_checking = SimpleNamespace(fn="fit"), False
    return trainer


def test_listeners_act_inside_batches_alone():
    trainer, run = running()
    listener = Listener()
    run.listeners.append(listener)
    trainer.train(0, batches=1)
    assert listener.seen == [("enter", 0), "end"]
    driver = trainer.callbacks[0]
    driver.on_train_batch_start(trainer, trainer.lightning_module, None, 1)
    assert run.batch is not None
    driver.on_validation_start(trainer_in_fit(trainer), trainer.lightning_module)
    assert listener.seen[2:] == [("enter", 1), "leave"]
    driver.on_exception(trainer, trainer.lightning_module, RuntimeError())
    assert run.batch is None
    assert listener.seen[-1] == "detach"
    assert not run.listeners


def test_a_run_without_a_past_takes_what_it_is_given_also_when_training_goes_on():
    """A checkpoint of a run without any of our parts."""
    run = RunState()
    run.begin(None, None, False, torch.device("cpu"), seed=7, max_epochs=3)
    assert (run.seed, run.max_epochs) == (7, 3)
    run.begin(None, None, False, torch.device("cpu"), seed=8, max_epochs=4)
    assert (run.seed, run.max_epochs) == (7, 3)
