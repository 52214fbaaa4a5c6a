"""Every epoch is closed once: at its end, or late where a resume has skipped it."""

import copy
from types import SimpleNamespace

import pytest

from lightning_noisy.state import EpochFigures


class FakeTrainer:
    """Says which epoch it is and whether batches have been trained before, and keeps what is logged."""

    def __init__(self, batches_before=0):
        self.current_epoch, self.global_step = 0, 7
        progress = SimpleNamespace(total=SimpleNamespace(ready=batches_before))
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        self.late, self.logged = [], []
        self.loggers = [SimpleNamespace(log_metrics=lambda figures, step: self.late.append((figures, step)))] * 2
        self.lightning_module = SimpleNamespace(
            log_dict=lambda figures, sync_dist: self.logged.append((figures, sync_dist))
        )

    def train(self, epochs, epoch, batches, ends=True):
        self.current_epoch = epoch
        for _ in range(batches):
            epochs.enter(self)
        if ends:
            epochs.leave(self)


class Owner:
    """Counts how often it was asked for figures."""

    def __init__(self, empty=()):
        self.epochs = EpochFigures(self.compute)
        self.asked = 0
        self.empty = empty

    def compute(self):
        self.asked += 1
        return {} if self.asked in self.empty else {"loss": self.asked / 10}


def test_an_epoch_is_closed_at_its_end():
    trainer, owner = FakeTrainer(), Owner()
    for epoch in range(3):
        trainer.train(owner.epochs, epoch, batches=4)
        assert owner.epochs.open_epoch is None
    assert owner.asked == 3
    assert owner.epochs.history == {0: {"loss": 0.1}, 1: {"loss": 0.2}, 2: {"loss": 0.3}}
    assert trainer.logged == [({"loss": 0.1}, True), ({"loss": 0.2}, True), ({"loss": 0.3}, True)]
    assert not trainer.late


def test_an_epoch_without_a_batch_or_an_end_that_comes_twice_is_nothing():
    trainer, owner = FakeTrainer(), Owner()
    trainer.train(owner.epochs, 0, batches=0)
    assert (owner.asked, owner.epochs.history, trainer.logged) == (0, {}, [])
    trainer.train(owner.epochs, 1, batches=1)
    owner.epochs.leave(trainer)
    assert owner.asked == len(trainer.logged) == 1


def test_a_skipped_end_is_made_up_for_before_the_next_epoch_begins():
    trainer, owner = FakeTrainer(), Owner()
    trainer.train(owner.epochs, 4, batches=2, ends=False)
    assert (owner.asked, owner.epochs.open_epoch) == (0, 4)
    trainer.train(owner.epochs, 5, batches=2, ends=False)
    assert (owner.asked, owner.epochs.open_epoch) == (1, 5)
    assert owner.epochs.history == {4: {"loss": 0.1}}
    rounded = pytest.approx(0.1, rel=1e-7)
    assert trainer.late == [({"loss": rounded, "epoch": 4}, 7)] * 2
    assert trainer.late[0][0]["loss"] != 0.1  # float32, as Lightning logs the others
    assert not trainer.logged


def test_no_figures_leave_no_trace():
    trainer, owner = FakeTrainer(), Owner(empty=(1, 2))
    trainer.train(owner.epochs, 0, batches=1)
    trainer.train(owner.epochs, 1, batches=1, ends=False)
    trainer.train(owner.epochs, 2, batches=1)
    assert owner.epochs.history == {2: {"loss": 0.3}}
    assert not trainer.late


@pytest.mark.parametrize(("batches_before", "kept"), [(0, False), (3, True)])
def test_a_fresh_start_forgets_and_a_resume_does_not(batches_before, kept):
    trainer, owner = FakeTrainer(batches_before), Owner()
    trainer.train(owner.epochs, 0, batches=1)
    trainer.train(owner.epochs, 1, batches=1, ends=False)
    owner.epochs.begin(trainer)
    assert owner.epochs.open_epoch == (1 if kept else None)
    assert owner.epochs.history == ({0: {"loss": 0.1}} if kept else {})


def test_saved_state_is_a_snapshot_and_brings_the_open_epoch_back():
    trainer, owner = FakeTrainer(3), Owner()
    trainer.train(owner.epochs, 0, batches=1)
    trainer.train(owner.epochs, 1, batches=1, ends=False)
    state = owner.epochs.state_dict()
    assert state == {"open_epoch": 1, "history": {0: {"loss": 0.1}}}
    owner.epochs.history[0]["loss"] = 9.0
    twin = Owner()
    twin.epochs.load_state_dict(state)
    twin.epochs.begin(trainer)
    trainer.train(twin.epochs, 2, batches=1)
    assert twin.epochs.history == {0: {"loss": 0.1}, 1: {"loss": 0.1}, 2: {"loss": 0.2}}
    assert state == {"open_epoch": 1, "history": {0: {"loss": 0.1}}}


def test_a_copy_asks_its_own_owner():
    trainer, owner = FakeTrainer(), Owner()
    twin = copy.deepcopy(owner)
    trainer.train(twin.epochs, 0, batches=1)
    assert (owner.asked, twin.asked) == (0, 1)
    assert not owner.epochs.history
