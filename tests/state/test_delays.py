"""What a run is too short for is said once."""

import re
import warnings

import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from lightning_noisy.callbacks import (
    SELC,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    ParameterSchedule,
)
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    PencilLoss,
    SelfAdaptiveTraining,
    StagedLoss,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.state.delays import Delayed
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module


def said(folder, callbacks=(), loss=None, word="outlasts the run", module=None, data=None, **options):
    """Warnings of a fit of two epochs."""
    trainer = make_trainer(folder, callbacks, **{"max_epochs": 2, **options})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if module is None:
            trainer.fit(make_module(loss or torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
        else:
            trainer.fit(module, data)
    return [str(one.message) for one in caught if word in str(one.message)]


STAGES = [torch.nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()]
PARTS = {
    "selc": (lambda first: SELC(warmup_epochs=first), "SELC", "warmup_epochs"),
    "selc-every-2": (lambda first: SELC(warmup_epochs=1, every_n_epochs=first + 1), "SELC", "warmup_epochs"),
    "joint": (lambda first: JointOptimizationLabels(warmup_epochs=first, window=1), "Joint", "warmup_epochs"),
    "sat": (lambda first: SelfAdaptiveTraining(warmup_epochs=first), "SelfAdaptiveTraining", "warmup_epochs"),
    "truncated": (
        lambda first: TruncatedGeneralizedCrossEntropy(0.7, 0.3, warmup_epochs=first, every_n_epochs=1),
        "Truncated",
        "warmup_epochs",
    ),
    "pencil": (lambda first: PencilLoss(40.0, warmup_epochs=0, fixed_from_epoch=first), "Pencil", "fixed_from_epoch"),
    "abstaining": (lambda first: DeepAbstainingClassifier(first), "DeepAbstaining", "warmup_epochs"),
    "staged": (lambda first: StagedLoss(STAGES, [0, first]), "StagedLoss", "starts"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_begins_after_the_end(tmp_path, name):
    make, owner, argument = PARTS[name]
    for first, expected in (
        (1, []),
        (2, [f"{owner}.* by its `{argument}` it acts from epoch 2 on, but the last .* 1"]),
    ):
        part = make(first)
        assert isinstance(part, Delayed)
        given = {"loss": part} if isinstance(part, torch.nn.Module) else {"callbacks": [part]}
        found = said(tmp_path, **given)
        assert len(found) == len(expected)
        assert all(map(re.search, expected, found))


def test_epochs_that_steps_cut_short(tmp_path):
    assert not said(tmp_path, [SELC(warmup_epochs=1)], max_epochs=9, max_steps=6)
    assert said(tmp_path, [SELC(warmup_epochs=1)], max_epochs=9, max_steps=5)
    assert not said(tmp_path, [SELC(warmup_epochs=1)], fast_dev_run=True, max_epochs=9)


def test_a_schedule_that_does_not_come_to_its_end(tmp_path):
    for schedule in (ParameterSchedule("SELC.momentum", 0, 0.9, total_epochs=3), GradientSwitching(total_epochs=3)):
        callbacks = [schedule] if isinstance(schedule, GradientSwitching) else [schedule, SELC()]
        (line,) = said(tmp_path, callbacks)
        assert line.startswith(
            f"{type(schedule).__name__} outlasts the run: by its `total_epochs` it spans 3 epochs, but"
        )
    assert not said(tmp_path, [ParameterSchedule("SELC.momentum", 0, 0.9), SELC()])


class Endless(IterableDataset):
    def __iter__(self):
        x, noisy, _ = make_tensors(16)
        return iter(zip(x, noisy, torch.arange(16), strict=True))


@pytest.mark.parametrize(("interval", "count"), [("step", 1), ("epoch", 0)])
def test_a_schedule_by_steps_needs_a_length(tmp_path, interval, count):
    schedule = ParameterSchedule("criterion.label_smoothing", 0.0, 0.1, interval=interval)
    loader = torch.utils.data.DataLoader(Endless(), 8)
    lines = said(tmp_path, [schedule], word="moves once an epoch", module=ForeignModule(), data=loader)
    assert len(lines) == count
    x, noisy, _ = make_tensors(16)
    loader = make_loader(TensorDataset(x, noisy, torch.arange(16)))
    assert not said(tmp_path, [schedule], word="moves once", module=ForeignModule(), data=loader)


def test_labels_that_nothing_has_changed(tmp_path, caplog):
    word = "LabelWriter writes the given labels: nothing has changed one"
    assert len(said(tmp_path, [SELC(warmup_epochs=2), LabelWriter()], word=word)) == 1
    assert "Labels of 40 samples, 0 of them changed: " in caplog.text
    caplog.clear()
    selc = SELC(momentum=0.1)
    assert not said(tmp_path, [selc, LabelWriter()], word=word)
    changed = (selc.section.stores["target"].values.argmax(1) != selc.run.labels).sum()
    assert changed > 0
    assert f"Labels of 40 samples, {changed} of them changed: " in caplog.text
