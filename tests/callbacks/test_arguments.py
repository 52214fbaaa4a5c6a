"""Arguments, state keys and saved state of the callbacks."""

import io
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    ConfidenceTracker,
    DALSchedule,
    GradientSwitching,
    JointOptimizationLabels,
    MaskRefresh,
    MaskTracker,
    MemorizationTracker,
    ParameterSchedule,
    RunSummary,
    StepSeed,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.losses import DynamicsAwareLoss
from lightning_noisy.state import RunState
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

REFUSED = [
    (MaskRefresh, {"ratio": 1.5}, "Expected argument `ratio` to be a float in [0, 1), but got 1.5."),
    (MaskRefresh, {"ratio": 1.0}, "`ratio`"),
    (MaskRefresh, {"ratio": -0.1}, "`ratio`"),
    (MaskRefresh, {"ratio": math.nan}, "`ratio`"),
    (MaskRefresh, {"every_n_steps": 0}, "`every_n_steps`"),
    (MaskRefresh, {"every_n_epochs": 0}, "`every_n_epochs`"),
    (
        MaskRefresh,
        {"every_n_steps": 1.5},
        "Expected argument `every_n_steps` to be an int of at least 1, but got 1.5.",
    ),
    (MaskRefresh, {"every_n_steps": True}, "`every_n_steps` to be an int of at least 1, but got True."),
    (MaskRefresh, {"every_n_steps": "2"}, "`every_n_steps` to be an int of at least 1, but got '2'."),
    (MaskRefresh, {"every_n_steps": None}, "`every_n_steps` to be an int of at least 1, but got None."),
    (MaskRefresh, {"every_n_epochs": 2.0}, "`every_n_epochs` to be an int of at least 1, or None, but got 2.0."),
    (MaskRefresh, {"score": "loudness"}, "`score`"),
    (MaskRefresh, {"granularity": "layer"}, "`granularity`"),
    (MaskRefresh, {"drop": "all"}, "`drop` to be 'unimportant' or 'important', but got 'all'"),
    (MaskRefresh, {"apply_in": "test"}, "`apply_in`"),
    (SELC, {"momentum": 1.0}, "Expected argument `momentum` to be a float in [0, 1), but got 1.0."),
    (SELC, {"momentum": -0.1}, "`momentum`"),
    (SELC, {"warmup_epochs": -1}, "`warmup_epochs`"),
    (SELC, {"every_n_epochs": 0}, "`every_n_epochs`"),
    (SELC, {"warmup_epochs": 0.5}, "`warmup_epochs` to be an int of at least 0, but got 0.5."),
    (SELC, {"every_n_epochs": 10.0}, "`every_n_epochs` to be an int of at least 1, but got 10.0."),
    (SELC, {"floor": 1.0}, "`floor`"),
    (SELC, {"attention_threshold": 1.0}, "`attention_threshold` to be a float in [0, 1), but got 1.0."),
    (JointOptimizationLabels, {"warmup_epochs": 1.5}, "`warmup_epochs` to be an int of at least 1, but got 1.5."),
    (JointOptimizationLabels, {"window": 2.5}, "`window` to be an int of at least 1, but got 2.5."),
    (GradientSwitching, {"lam_prediction": -1}, "`lam_prediction`"),
    (GradientSwitching, {"lam_random": math.nan}, "`lam_random`"),
    (GradientSwitching, {"initial_pool": "full"}, "`initial_pool`"),
    (GradientSwitching, {"confidence": "mine"}, "`confidence`"),
    (GradientSwitching, {"redraw": "never"}, "`redraw`"),
    (GradientSwitching, {"total_epochs": 0}, "`total_epochs`"),
    (DALSchedule, {"q_start": -0.1}, "`q_start`"),
    (DALSchedule, {"q_start": 0.8, "q_end": 0.5}, "`q_end`"),
    (DALSchedule, {"q_start": 0.8, "lam_end": -1}, "`lam_end`"),
    (DALSchedule, {"q_start": 0.8, "total_epochs": 0}, "`total_epochs`"),
    (ParameterSchedule, {"target": "q", "start": 0, "end": 1}, "`target` to be a dotted name"),
    (ParameterSchedule, {"target": "loss.q", "start": 0, "end": 1, "interval": "day"}, "`interval`"),
    (DALSchedule, {"q_start": 0.8, "total_epochs": 2.5}, "`total_epochs` to be an int of at least 1, or None, but"),
    (ConfidenceTracker, {"figure_every_n_epochs": 1.5}, "`figure_every_n_epochs` to be an int of at least 1, but"),
    (ConfidenceTracker, {"figure_every_n_epochs": 0}, "`figure_every_n_epochs`"),
    (MemorizationTracker, {"figure_every_n_epochs": 0}, "`figure_every_n_epochs`"),
    (MaskTracker, {"figure_every_n_epochs": 0}, "`figure_every_n_epochs`"),
    (CDR, {"noise_rate": 1.0}, "Expected argument `noise_rate` to be a float in [0, 1), but got 1.0."),
    (CDR, {"noise_rate": -0.1}, "`noise_rate`"),
    (CDR, {"noise_rate": math.nan}, "`noise_rate`"),
    (RunSummary, {"metric": ()}, "`metric`"),
]


@pytest.mark.parametrize(("callback", "arguments", "message"), REFUSED)
def test_refused(callback, arguments, message):
    with pytest.raises(NoisyLabelError) as caught:
        callback(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (ParameterSchedule("loss.qq", 0, 1), "no number `qq` on `loss`"),
        (ParameterSchedule("los.q", 0, 1), "no submodule `los`"),
        (ParameterSchedule("loss.reduction", 0, 1), "no number `reduction` on `loss`"),
        (ParameterSchedule("loss.training", 0, 1), "no number `training` on `loss`"),
        (DALSchedule(0.8, target="network.head"), "no number `q` on `network.head`"),
    ],
)
def test_schedules_that_find_nothing(tmp_path, schedule, message):
    with pytest.raises(NoisyLabelError, match=message):
        make_trainer(tmp_path, [schedule]).fit(make_module(DynamicsAwareLoss(1.0)), datamodule=SmallDataModule(seed=0))


@pytest.mark.parametrize("make", [lambda: DALSchedule(0.8), GradientSwitching])
def test_schedules_ask_for_the_number_of_epochs(tmp_path, make):
    trainer = make_trainer(tmp_path, [make()], max_epochs=-1)
    with pytest.raises(NoisyLabelError, match=r"needs the number of epochs.*Trainer\(max_epochs=...\)"):
        trainer.fit(make_module(DynamicsAwareLoss(1.0)), datamodule=SmallDataModule(seed=0))
    assert trainer.global_step == 0


@pytest.mark.parametrize("epochs", [None, 1000])
def test_a_thousand_epochs_are_taken_with_a_line(tmp_path, caplog, epochs):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    module = make_module(DynamicsAwareLoss(1.0))
    trainer = make_trainer(tmp_path, [DALSchedule(0.0, 1.0), Stop()], max_epochs=epochs)
    with caplog.at_level("INFO"):
        trainer.fit(module, datamodule=SmallDataModule(seed=0))
    said = [message for message in caplog.messages if "max_epochs=..." in message and "spans 1000 epochs" in message]
    assert len(said) == 1
    assert module.loss.q == pytest.approx(0.001)


def test_the_first_number_of_epochs_is_kept(tmp_path):
    first = make_trainer(tmp_path, [DALSchedule(0.0, 1.0)], max_epochs=2)
    first.fit(make_module(DynamicsAwareLoss(1.0)), datamodule=SmallDataModule(seed=0))
    first.save_checkpoint(tmp_path / "two.ckpt")
    module = make_module(DynamicsAwareLoss(1.0))
    make_trainer(tmp_path, [DALSchedule(0.0, 1.0)], max_epochs=4).fit(
        module, datamodule=SmallDataModule(seed=0), ckpt_path=tmp_path / "two.ckpt"
    )
    assert module.loss.q == 1.0


def test_another_number_of_epochs_given_at_resume_is_taken_with_a_warning(tmp_path):
    first = make_trainer(tmp_path, [DALSchedule(0.0, 1.0, total_epochs=2)], max_epochs=2)
    first.fit(make_module(DynamicsAwareLoss(1.0)), datamodule=SmallDataModule(seed=0))
    first.save_checkpoint(tmp_path / "two.ckpt")
    module = make_module(DynamicsAwareLoss(1.0))
    trainer = make_trainer(tmp_path, [DALSchedule(0.0, 1.0, total_epochs=4)], max_epochs=3)
    with pytest.warns(UserWarning, match="goes on with total_epochs=4 as given; the checkpoint was written with 2"):
        trainer.fit(module, datamodule=SmallDataModule(seed=0), ckpt_path=tmp_path / "two.ckpt")
    assert module.loss.q == 0.5


def test_instances_of_one_class_keep_apart():
    callbacks = [
        MaskRefresh("head"),
        MaskRefresh("aux.head"),
        MaskTracker("head"),
        MaskTracker("aux.head"),
        MemorizationTracker(),
        MemorizationTracker(criterion="aux.loss"),
        SELC(),
        SELC(criterion="aux.loss"),
        ParameterSchedule("loss.q", 0, 1),
        ParameterSchedule("loss.lam", 0, 1),
        DALSchedule(0.8),
        DALSchedule(0.8, target="aux.loss"),
    ]
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)
    Trainer(callbacks=callbacks, logger=False, enable_checkpointing=False, accelerator="cpu")


@pytest.mark.parametrize(
    "make",
    [
        MaskRefresh,
        SELC,
        lambda: GradientSwitching(total_epochs=3),
        ConfidenceTracker,
        MemorizationTracker,
        MaskTracker,
        lambda: CDR(0.4),
        RunSummary,
        lambda: ParameterSchedule("loss.label_smoothing", 0.0, 0.1),
    ],
)
def test_state_is_plain_and_loads_into_a_new_instance(tmp_path, make):
    callback, twin = make(), make()
    trainer = make_trainer(tmp_path, [callback])
    trainer.fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
    file = io.BytesIO()
    torch.save([callback.state_dict(), trainer.callbacks[0].state_dict()], file)
    file.seek(0)
    own, shared = torch.load(file, weights_only=True)
    twin.load_state_dict(own)
    assert repr(twin.state_dict()) == repr(callback.state_dict())
    if hasattr(callback, "section"):
        assert callback.section.history or callback.section.stores
        run = RunState()
        run.add(twin.section)
        run.load_state_dict(shared)
        assert repr(twin.section.state_dict()) == repr(callback.section.state_dict())


def test_clean_labels_from_a_file(tmp_path):
    module, data = make_module(torch.nn.CrossEntropyLoss()), SmallDataModule(seed=0)
    data.setup("fit")
    np.savez(tmp_path / "labels.npz", clean=data.clean_targets.numpy(), other=np.zeros(3, dtype=int))
    tracker = ConfidenceTracker(str(tmp_path / "labels.npz"), "clean")
    known = ConfidenceTracker(figure_every_n_epochs=1)
    for callback in (tracker, known):
        make_trainer(tmp_path, [StepSeed(0), callback], max_epochs=1).fit(
            make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0)
        )
    assert tracker.history == known.history
    assert {"train/conf/clean", "train/conf/noisy"} == set(known.history[0])
    with pytest.raises(NoisyLabelError, match=r"labels\.npz"):
        make_trainer(tmp_path, [ConfidenceTracker(str(tmp_path / "labels.npz"), "other")]).fit(module, datamodule=data)


def test_figures_reach_tensorboard_and_the_folder(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    make_trainer(tmp_path, [ConfidenceTracker(figure_every_n_epochs=1)], logger=logger).fit(
        make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0)
    )
    events = EventAccumulator(logger.log_dir).Reload()
    assert len(events.Images("train/conf")) >= 2
    assert [event.value for event in events.Scalars("train/conf/clean")]
    picture = (tmp_path / "run" / "version_0" / "figures" / "confidence.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_whole_set_is_announced_once(tmp_path, caplog):
    x, noisy, _ = make_tensors()
    loader = make_loader(IndexedDataset(TensorDataset(x, noisy)))
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, [ConfidenceTracker()], max_epochs=3).fit(ForeignModule(), loader)
    assert sum("knows no clean labels" in record.message for record in caplog.records) == 1
