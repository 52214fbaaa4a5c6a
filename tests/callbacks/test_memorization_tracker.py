"""Shares of learned, memorized and other predictions, against a count by hand."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, MemorizationTracker, StepSeed
from lightning_noisy.data import IndexedDataset
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import MemoryLogger, SmallDataModule, make_module

NAMES = ("noisy/correct", "noisy/memorized", "noisy/other", "clean/correct", "clean/wrong")


class PredictionSpy(Callback):
    """Index and predicted class of every training sample, epoch by epoch, read off the classifier itself."""

    def __init__(self):
        self.epochs = {}

    def on_fit_start(self, trainer, pl_module):
        def note(module, args, output):
            if pl_module.training:
                seen = self.epochs.setdefault(trainer.current_epoch, [])
                seen += zip(self.index, output.detach().argmax(dim=1).tolist(), strict=True)

        self.handle = pl_module.classifier.register_forward_hook(note)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.index = batch[2].tolist()

    def on_fit_end(self, trainer, pl_module):
        self.handle.remove()


def counted(seen, given, clean):
    """Shares by hand; the first prediction of a sample counts."""
    first = {}
    for index, prediction in seen:
        first.setdefault(index, prediction)
    counts = dict.fromkeys(NAMES, 0)
    for index, prediction in first.items():
        right, label = int(clean[index]), int(given[index])
        if right == label:
            counts["clean/correct" if prediction == right else "clean/wrong"] += 1
        elif prediction == right:
            counts["noisy/correct"] += 1
        else:
            counts["noisy/memorized" if prediction == label else "noisy/other"] += 1
    shares = {}
    for group in ("noisy", "clean"):
        members = sum(count for name, count in counts.items() if name.startswith(group))
        shares |= {
            f"train/memorization/{name}": count / members
            for name, count in counts.items()
            if name.startswith(group) and members
        }
    return shares


def loader(num_samples=24, batch_size=8, sampler=None):
    x, noisy, _ = make_tensors(num_samples)
    return DataLoader(IndexedDataset(TensorDataset(x, noisy)), batch_size, sampler=sampler)


def run(folder, data, clean, callbacks=(), max_epochs=4, **options):
    tracker, spy, module = MemorizationTracker(clean), PredictionSpy(), ForeignModule()
    trainer = make_trainer(folder, [*callbacks, tracker, spy], max_epochs, **options)
    trainer.fit(module, data)
    return tracker, spy, trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_counts_of_every_epoch(tmp_path, precision):
    _, given, clean = make_tensors()
    torch.manual_seed(0)
    tracker, spy, trainer = run(tmp_path, loader(), clean, max_epochs=8, precision=precision)
    assert set(tracker.history) == set(range(8))
    for epoch, figures in tracker.history.items():
        assert len(spy.epochs[epoch]) == 24
        assert figures == pytest.approx(counted(spy.epochs[epoch], given, clean), abs=1e-12)
        assert sum(value for name, value in figures.items() if "/noisy/" in name) == pytest.approx(1)
        assert sum(value for name, value in figures.items() if "/clean/" in name) == pytest.approx(1)
    for name in NAMES:  # each of them is put to the test
        assert any(figures[f"train/memorization/{name}"] > 0 for figures in tracker.history.values()), name
    logged = {n: v.item() for n, v in trainer.callback_metrics.items() if n.startswith("train/memorization/")}
    assert logged == pytest.approx(tracker.history[7])


def test_samples_that_were_not_seen_or_seen_twice(tmp_path):
    _, given, clean = make_tensors()
    sampler = [0, 3, 5, 3, 7, 11, 0, 13, 17, 19, 3]
    tracker, spy, _ = run(tmp_path, loader(batch_size=4, sampler=sampler), clean, max_epochs=1)
    assert len(spy.epochs[0]) == len(sampler)
    # Within a batch the first row of a sample counts, over batches of one process the last.
    rows = {}
    for start in range(0, len(sampler), 4):
        rows |= dict(reversed(spy.epochs[0][start : start + 4]))
    assert set(rows) == set(sampler)
    assert tracker.history[0] == pytest.approx(counted(rows.items(), given, clean))


def test_an_epoch_forgets_the_one_before(tmp_path):
    class Shrinking(ForeignModule):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if self.current_epoch == 1 and batch_idx == 1 else None

    _, given, clean = make_tensors()
    tracker, spy = MemorizationTracker(clean), PredictionSpy()
    make_trainer(tmp_path, [tracker, spy]).fit(Shrinking(), loader())
    assert len(spy.epochs[1]) == 8
    assert tracker.history[1] == pytest.approx(counted(spy.epochs[1], given, clean))


@pytest.mark.parametrize("group", ["noisy", "clean"])
def test_a_group_without_members_has_no_figures(tmp_path, group):
    _, given, clean = make_tensors()
    clean = given.clone() if group == "clean" else (given + 1) % 4
    tracker, spy, _ = run(tmp_path, loader(), clean, max_epochs=2)
    assert {name.split("/")[2] for name in tracker.history[0]} == {group}
    assert tracker.history[1] == pytest.approx(counted(spy.epochs[1], given, clean))


def test_wrong_labels_are_the_given_ones_also_beside_a_changer(tmp_path):
    _, given, clean = make_tensors()
    tracker, spy, _ = run(tmp_path, loader(), clean, [SELC(momentum=0.0)])
    for epoch, figures in tracker.history.items():
        assert figures == pytest.approx(counted(spy.epochs[epoch], given, clean))


def test_it_changes_nothing(tmp_path):
    weights = []
    for callbacks in ([], [MemorizationTracker(make_tensors()[2])]):
        torch.manual_seed(0)
        module = ForeignModule(dropout=0.3)
        make_trainer(tmp_path, [StepSeed(0), *callbacks]).fit(module, loader())
        weights.append(module.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


def test_our_data_module_knows_its_clean_labels(tmp_path):
    data, trackers = SmallDataModule(seed=0), (MemorizationTracker(), ConfidenceTracker())
    logger = MemoryLogger()
    make_trainer(tmp_path, trackers, logger=logger).fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=data)
    assert set(trackers[0].history[1]) == {f"train/memorization/{name}" for name in NAMES}
    assert logger.seen["train/memorization/noisy/other"].keys() == {0, 1}
    assert set(trackers[0].section.stores) == {"outcome"}
    assert trackers[0].section.stores["outcome"].values.dtype == torch.int8


def test_clean_labels_from_a_file(tmp_path):
    _, given, clean = make_tensors()
    np.savez(tmp_path / "labels.npz", clean=clean.numpy(), other=np.zeros(3, dtype=int))
    tracker, spy = MemorizationTracker(str(tmp_path / "labels.npz"), "clean"), PredictionSpy()
    make_trainer(tmp_path, [tracker, spy]).fit(ForeignModule(), loader())
    assert tracker.history[1] == pytest.approx(counted(spy.epochs[1], given, clean))


def test_without_clean_labels_nothing_can_be_measured(tmp_path):
    message = r"MemorizationTracker compares .* pass `clean_targets`.*\.npy.*data module"
    with pytest.raises(NoisyLabelError, match=message) as caught:
        make_trainer(tmp_path, [MemorizationTracker()]).fit(ForeignModule(), loader())
    assert "\n" not in str(caught.value)


def test_clean_labels_of_another_training_set_are_refused(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"`clean_targets` to be integers of shape \(24,\)"):
        make_trainer(tmp_path, [MemorizationTracker(make_tensors(23)[2])]).fit(ForeignModule(), loader())


@pytest.mark.parametrize(("shift", "said"), [(1, True), (0, False)])
def test_clean_labels_that_count_from_one_are_said(tmp_path, recwarn, shift, said):
    x, noisy, clean = make_tensors()
    data = DataLoader(IndexedDataset(TensorDataset(x, noisy)), 8)
    make_trainer(tmp_path, [MemorizationTracker(clean + shift)], 1).fit(ForeignModule(), data)
    assert (
        any("of the given labels equal `clean_targets`, fewer than by chance" in str(w.message) for w in recwarn)
        is said
    )


def test_the_figure_comes_every_n_epochs_and_at_the_end(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    tracker = MemorizationTracker(make_tensors()[2], figure_every_n_epochs=2)
    make_trainer(tmp_path, [tracker], 5, logger=logger, log_every_n_steps=1).fit(ForeignModule(), loader())
    events = EventAccumulator(logger.log_dir).Reload()
    assert [image.step for image in events.Images("train/memorization")] == [6, 12, 15]
    assert len(events.Scalars("train/memorization/noisy/memorized")) == 5
    picture = (tmp_path / "run" / "version_0" / "figures" / "memorization.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_a_run_without_a_logger_writes_nothing(tmp_path):
    run(tmp_path, loader(), make_tensors()[2])
    assert not list(tmp_path.rglob("*.png"))
