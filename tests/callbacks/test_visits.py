"""Samples that are visited several times in an epoch, twice in a batch, or not at all: what callbacks make of it.

Each is compared with a recursion in NumPy that walks through the batches sample by sample. Of a sample that stands
twice in a batch the first entry writes.
"""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy.callbacks import (
    SELC,
    ConfidenceTracker,
    GradientSwitching,
    LabelWriter,
    MemorizationTracker,
    MixUp,
    PosteriorWriter,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.state import RunState
from lightning_noisy.targets import TargetCall
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.losses.numpy_oracle import CLASSES, SAMPLES
from tests.losses.test_visits import EPOCHS, LABELS, schedule, several

MOMENTUM, WARMUP = 0.7, 2


def calls(seed):
    for batch in schedule(seed):
        given, index = torch.tensor(batch.labels), torch.tensor(batch.index)
        yield batch, TargetCall(index, torch.tensor(batch.logits), given, given, batch.epoch)


def begun(callback):
    """The callback as it stands in a run."""
    callback._run = RunState()
    callback._run.seed, callback._run.labels = 3, torch.tensor(LABELS)
    callback.section.begin(SAMPLES, torch.device("cpu"))
    return callback


def rows_of(callback, name):
    return callback.section.stores[name].values.numpy()


@several
def test_selc_moves_at_each_visit_and_a_batch_shares_one_row(seed):
    callback, rows = begun(SELC(MOMENTUM, WARMUP)), np.eye(CLASSES)[LABELS]
    for batch, call in calls(seed):
        target = callback.change_target(call)
        if batch.epoch < WARMUP:
            assert target is call.target
            continue
        for sample, row in batch.firsts():
            rows[sample] = MOMENTUM * rows[sample] + (1 - MOMENTUM) * batch.p[row]
        np.testing.assert_allclose(target, rows[batch.index], rtol=1e-5)


@several
@pytest.mark.parametrize("redraw", ["step", "epoch"])
def test_pools_grow_at_each_visit_or_at_the_first_of_an_epoch(seed, redraw):
    callback = begun(GradientSwitching(redraw=redraw, total_epochs=EPOCHS))
    callback.span = EPOCHS
    pools, drawn = np.eye(CLASSES)[LABELS], {}
    for batch, call in calls(seed):
        labels = callback.change_target(call).tolist()
        progress = batch.epoch / EPOCHS
        for sample, row in batch.firsts():
            assert pools[sample, labels[row]] > 0
            first = (batch.epoch, sample) not in drawn
            stands = drawn.setdefault((batch.epoch, sample), labels[row])
            if redraw == "epoch":
                assert labels[row] == stands
            if first or redraw == "step":
                p, y = batch.p[row], LABELS[sample]
                pools[sample] += progress / CLASSES
                pools[sample, y] += p[y] * (1 - progress)
                pools[sample, p.argmax()] += 2 * p[y] * progress
        for row, sample in enumerate(batch.index):
            assert labels[row] == labels[batch.index.index(sample)]  # once a batch
        seen = sorted(set(batch.index))
        np.testing.assert_allclose(rows_of(callback, "pool")[seen], pools[seen], rtol=1e-5)


@several
def test_trackers_and_writers_keep_the_last_visit(seed):
    confidence, memorization = begun(ConfidenceTracker()), begun(MemorizationTracker())
    posterior, labels = begun(PosteriorWriter()), begun(LabelWriter())
    clean = np.roll(LABELS, 1)
    for tracker in (confidence, memorization):
        tracker._clean = torch.tensor(clean)
    last, epoch = {}, 0
    everything = {}

    def check():
        if not last:
            return
        wrong = {sample for sample in last if LABELS[sample] != clean[sample]}
        groups = {"clean": set(last) - wrong, "noisy": wrong}
        expected = {
            f"train/conf/{name}": np.mean([last[sample][LABELS[sample]] for sample in members])
            for name, members in groups.items()
            if members
        }
        assert confidence.epoch_metrics() == pytest.approx(expected, rel=1e-5)
        seen = memorization.epoch_metrics()
        if wrong:
            memorized = np.mean([last[sample].argmax() == LABELS[sample] for sample in wrong])
            assert seen["train/memorization/noisy/memorized"] == pytest.approx(memorized)

    for batch, call in calls(seed):
        if batch.epoch != epoch:
            check()
            last, epoch = {}, batch.epoch
        for callback in (confidence, memorization, posterior, labels):
            callback.observe_target(call)
        for sample, row in batch.firsts():
            last[sample] = everything[sample] = batch.p[row]
    check()
    for sample, p in everything.items():
        np.testing.assert_allclose(rows_of(posterior, "probabilities")[sample], p, rtol=1e-5)
        assert rows_of(labels, "label")[sample] == LABELS[sample]


def test_a_sample_that_stands_twice_in_a_batch_trains_through_every_callback(tmp_path):
    """The whole way: loader, hook, rows; mixing takes each row with its own partner."""
    x, noisy, clean = make_tensors()
    order = [0, 1, 1, 2, 0, 5, 5, 5, 9, 1, 0, 3]
    loader = DataLoader(IndexedDataset(TensorDataset(x, noisy)), batch_size=4, sampler=order)
    selc, tracker = SELC(MOMENTUM), ConfidenceTracker(clean)
    make_trainer(tmp_path, [selc, tracker, MixUp(0.5)]).fit(ForeignModule(), loader)
    rows = selc.section.stores["target"].values
    assert rows.any(dim=1).nonzero().flatten().tolist() == sorted(set(order))
    torch.testing.assert_close(rows[sorted(set(order))].sum(dim=1), torch.ones(6))
