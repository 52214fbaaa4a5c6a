"""A run that is interrupted and resumed equals the uninterrupted one, bit for bit on the CPU."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch.utils.data import TensorDataset

from lightning_noisy import Storage
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    AttentionTracker,
    AveragedWeights,
    ConfidenceTracker,
    CorrectionTracker,
    DALSchedule,
    GradientBiasTracker,
    GradientErrorTracker,
    GradientShareTracker,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    MaskRefresh,
    MaskTracker,
    MemorizationTracker,
    MixUp,
    ParameterSchedule,
    PoolTracker,
    PosteriorWriter,
    RunSummary,
    StepSeed,
    TrainingDynamics,
)
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    DynamicsAwareLoss,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    JointOptimization,
    NegativeLearning,
    NoiseAttentionLoss,
    PeerLoss,
    PencilLoss,
    SelectiveNegativeLearning,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    StagedLoss,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.state import RunDriver
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import MemoryLogger, SmallDataModule, assert_same, make_heads, make_module

EPOCHS, BATCHES = 4, 5


def cross_entropy():
    return torch.nn.CrossEntropyLoss()


METHODS = {
    "nothing": (cross_entropy, list),
    "mask": (cross_entropy, lambda: [MaskRefresh(ratio=0.5)]),
    "mask-every-3": (cross_entropy, lambda: [MaskRefresh(ratio=0.5, every_n_steps=3, apply_in="always")]),
    "mask-every-2-epochs": (cross_entropy, lambda: [MaskRefresh(ratio=0.5, every_n_epochs=2)]),
    "mask-gradient": (
        cross_entropy,
        lambda: [
            MaskRefresh("network.head.0", ratio=0.5, score="gradient"),
            MaskRefresh("network.head.1", ratio=0.3, score="random", granularity="edge", every_n_epochs=1),
            MaskRefresh("network.head.2", ratio=0.5, score="obd", every_n_steps=3, apply_in="always"),
        ],
        make_heads,
    ),
    "mask-gradient-every-3": (
        cross_entropy,
        lambda: [
            MaskRefresh(
                ["network.head.0", "network.head.1"], ratio=0.5, score="gradient", granularity="edge", every_n_steps=3
            ),
            MaskRefresh("network.head.2", ratio=0.5, every_n_steps=4),
        ],
        make_heads,
    ),
    "mask-gradient-every-2-epochs": (
        cross_entropy,
        lambda: [
            MaskRefresh(["network.head.2", "network.head.0"], ratio=0.5, score="gradient", every_n_epochs=2),
            MaskRefresh("network.head.1", ratio=0.5, score="activation", granularity="edge", every_n_steps=2),
        ],
        make_heads,
    ),
    "selc": (cross_entropy, lambda: [SELC(momentum=0.7, warmup_epochs=1)]),
    "selc-top-k": (cross_entropy, lambda: [SELC(momentum=0.7, warmup_epochs=1, storage=Storage("float16", top_k=2))]),
    "nal": (
        lambda: NoiseAttentionLoss(lam=0.5, beta=0.1),
        lambda: [SELC(momentum=0.7, warmup_epochs=1, every_n_epochs=2, floor=1e-4)],
    ),
    "gss": (cross_entropy, lambda: [GradientSwitching(total_epochs=EPOCHS)]),
    "gss-epoch": (cross_entropy, lambda: [GradientSwitching(redraw="epoch", total_epochs=EPOCHS)]),
    "confidence": (cross_entropy, lambda: [ConfidenceTracker()]),
    "dal": (lambda: DynamicsAwareLoss(0.8), lambda: [DALSchedule(0.8, total_epochs=EPOCHS)]),
    "schedule": (
        lambda: GeneralizedCrossEntropy(0.1),
        lambda: [ParameterSchedule("loss.q", 0.0, 1.0, interval="step", total_epochs=EPOCHS)],
    ),
    "cdr": (cross_entropy, lambda: [CDR(0.4)]),
    "memorization": (cross_entropy, lambda: [MemorizationTracker(), TrainingDynamics()]),
    "unaugmented": (cross_entropy, lambda: [TrainingDynamics(unaugmented=True)]),
    "trackers": (
        cross_entropy,
        lambda: [
            GradientSwitching(total_epochs=EPOCHS),
            GradientErrorTracker(every_n_steps=2),
            GradientShareTracker(every_n_steps=2),
            GradientBiasTracker(),
            CorrectionTracker(),
            PoolTracker(every_n_steps=3),
        ],
    ),
    "attention": (lambda: NoiseAttentionLoss(lam=0.5), lambda: [AttentionTracker(every_n_steps=2)]),
    "mask-tracker": (cross_entropy, lambda: [MaskTracker(), MaskRefresh(ratio=0.5, score="random")]),
    "ratio": (
        cross_entropy,
        lambda: [
            MaskRefresh(ratio=0.5),
            ParameterSchedule("MaskRefresh.ratio", 0.0, 1.0, interval="step", total_epochs=EPOCHS),
        ],
    ),
    "elr": (lambda: EarlyLearningRegularization(lam=3.0, momentum=0.7), list),
    "elr-half": (lambda: EarlyLearningRegularization(storage=Storage("float16", sharded=True)), list),
    "sat": (lambda: SelfAdaptiveTraining(warmup_epochs=1, momentum=0.7), list),
    "truncated": (lambda: TruncatedGeneralizedCrossEntropy(0.7, 0.3, warmup_epochs=0, every_n_epochs=2), list),
    "nlnl": (
        lambda: StagedLoss(
            [
                NegativeLearning(2, window=2),
                SelectiveNegativeLearning(2, window=2),
                SelectivePositiveLearning(0.3, window=2),
            ],
            [0, 1, 2],
        ),
        list,
    ),
    "peer": (lambda: PeerLoss(0.5), list),
    "pencil": (lambda: PencilLoss(label_lr=40.0, warmup_epochs=1, fixed_from_epoch=3, scale=2.0), list),
    "abstaining": (lambda: DeepAbstainingClassifier(1, total_epochs=EPOCHS), list),
    "nal-confidence": (
        lambda: NoiseAttentionLoss(lam=0.5, attention="confidence"),
        lambda: [SELC(momentum=0.7, warmup_epochs=1, floor=1e-4)],
    ),
    "nal-threshold": (
        lambda: NoiseAttentionLoss(lam=0.5),
        lambda: [SELC(momentum=0.7, warmup_epochs=1, floor=1e-4, attention_threshold=0.5)],
    ),
    "joint-optimization": (JointOptimization, lambda: [JointOptimizationLabels(warmup_epochs=2, window=2)]),
    "posterior": (cross_entropy, lambda: [PosteriorWriter()]),
    "averaged": (cross_entropy, lambda: [AveragedWeights(1)]),
    "mix-up": (cross_entropy, lambda: [MixUp(0.9), SELC(momentum=0.7, warmup_epochs=1), LabelWriter()]),
    "together": (
        lambda: DynamicsAwareLoss(0.8),
        lambda: [
            MaskRefresh(ratio=0.5),
            SELC(momentum=0.7, warmup_epochs=1),
            DALSchedule(0.8, total_epochs=EPOCHS),
            ConfidenceTracker(),
        ],
    ),
}


class Run:
    def __init__(self, folder, method, max_epochs=EPOCHS, checkpoints=(), ckpt_path=None, num_workers=0, extra=()):
        loss, callbacks, *head = METHODS[method]
        self.module = make_module(loss(), head=(head or [LinearHead])[0])
        self.logger = MemoryLogger()
        callbacks = [StepSeed(1), *callbacks(), RunSummary(), *extra, *checkpoints]
        options = {"enable_checkpointing": True} if checkpoints else {}
        self.trainer = make_trainer(folder, callbacks, max_epochs, logger=self.logger, **options)
        self.trainer.fit(self.module, datamodule=SmallDataModule(seed=0, num_workers=num_workers), ckpt_path=ckpt_path)

    def state(self):
        dump = self.trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        callbacks = {name: state for name, state in dump["callbacks"].items() if "ModelCheckpoint" not in name}
        return {"weights": dump["state_dict"], "optimizer": dump["optimizer_states"], **callbacks}

    def figures(self, first_epoch):
        noisy = ("train/loss_step", "epoch", "lr")
        return {
            name: {epoch: value for epoch, value in by_epoch.items() if epoch >= first_epoch}
            for name, by_epoch in self.logger.seen.items()
            if name not in noisy
        }


def assert_resumes(whole, resumed, first_epoch, where="state"):
    assert whole.trainer.global_step == resumed.trainer.global_step == EPOCHS * BATCHES
    states = whole.state(), resumed.state()
    for state in states:
        state["lightning_noisy"].pop("max_epochs")  # that of the first start
    assert_same(*states, where)
    figures = resumed.figures(first_epoch)
    assert {"train/loss", "train/acc", "test/acc", "val/acc"} <= set(figures)
    assert_same(whole.figures(first_epoch), figures, where)


def assert_resumes_after_the_last_batch(whole, resumed):
    """Lightning then skips that epoch's validation and end; ours make up for the end."""
    states = whole.state(), resumed.state()
    for state in states:
        state["lightning_noisy"]["sections"].pop("RunSummary")
    assert_same(*states, "after the last batch")
    assert_same(whole.figures(2), resumed.figures(2), "after the last batch")
    trained = [name for name in whole.figures(1) if name.startswith(("train/", "target/", "mask/"))]
    for name in trained:  # Lightning rounds what it logs to float32
        assert resumed.figures(1)[name] == pytest.approx(whole.figures(1)[name], rel=1e-6)


def every_epoch(folder):
    return ModelCheckpoint(folder, filename="end-{epoch}", every_n_epochs=1, save_top_k=-1)


def every_step(folder):
    return ModelCheckpoint(folder, filename="{epoch}-{step}", every_n_train_steps=1, save_top_k=-1)


def every_validation(folder):
    """Before the end of the epoch; another `mode` tells its state from that of the others."""
    options = {"every_n_epochs": 1, "save_on_train_epoch_end": False, "mode": "max"}
    return ModelCheckpoint(folder, filename="val-{epoch}", save_top_k=-1, **options)


FIRST_EPOCHS = {"epoch=1-step=7": 1, "epoch=2-step=12": 2, "val-epoch=1": 2, "end-epoch=1": 2}
"""Checkpoint -> the epoch from which on figures are the same: within an epoch, after its validation, at its end."""


@pytest.mark.parametrize("method", METHODS)
def test_from_any_checkpoint(tmp_path, method):
    whole = Run(tmp_path, method, checkpoints=[save(tmp_path) for save in (every_step, every_validation, every_epoch)])
    for name, first_epoch in FIRST_EPOCHS.items():
        path = tmp_path / f"{name}.ckpt"
        torch.load(path, weights_only=True)
        assert_resumes(whole, Run(tmp_path, method, ckpt_path=path), first_epoch, name)
    last_batch = tmp_path / "epoch=1-step=10.ckpt"
    assert_resumes_after_the_last_batch(whole, Run(tmp_path, method, ckpt_path=last_batch))

    first = Run(tmp_path, method, max_epochs=2)
    first.trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = Run(tmp_path, method, ckpt_path=tmp_path / "two.ckpt")
    assert_resumes(whole, resumed, first_epoch=2, where="two epochs and then four")


def test_a_foreign_project_resumes_in_the_middle_of_an_epoch_with_two_lines(tmp_path):
    def run(ckpt_path=None, callbacks=()):
        x, noisy, _ = make_tensors()
        train_set = IndexedDataset(TensorDataset(x, noisy))
        loader = ResumableLoader(train_set, batch_size=8, sampler=EpochSampler(train_set, seed=3))
        torch.manual_seed(0)
        module, selc = ForeignModule(dropout=0.3), SELC(momentum=0.7)
        trainer = make_trainer(tmp_path, [StepSeed(1), selc, *callbacks], 3, enable_checkpointing=bool(callbacks))
        trainer.fit(module, loader, ckpt_path=ckpt_path)
        assert selc.section.stores["target"].values.any()
        return {"weights": module.state_dict(), "selc": selc.section.state_dict()}

    whole = run(callbacks=[every_step(tmp_path)])
    assert_same(whole, run(tmp_path / "epoch=1-step=4.ckpt"))
    assert_same(whole, run(tmp_path / "epoch=0-step=3.ckpt"))


def test_after_a_crash_with_workers(tmp_path):
    class Crash(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 8:
                raise RuntimeError("crash")

    whole = Run(tmp_path / "whole", "together")
    with pytest.raises(RuntimeError, match="crash"):
        Run(tmp_path, "together", checkpoints=[every_step(tmp_path)], num_workers=2, extra=[Crash()])
    resumed = Run(tmp_path, "together", ckpt_path=tmp_path / "epoch=1-step=8.ckpt", num_workers=1)
    assert_resumes(whole, resumed, first_epoch=1)


def test_an_earlier_checkpoint_that_is_tested_after_a_fit_rewinds_nothing(tmp_path):
    run = Run(tmp_path, "together", checkpoints=[every_epoch(tmp_path)])
    (driver,) = (callback for callback in run.trainer.callbacks if isinstance(callback, RunDriver))
    kept = copy.deepcopy(driver.state_dict())
    path = tmp_path / "end-epoch=1.ckpt"
    for look in (run.trainer.test, run.trainer.validate):
        look(run.module, datamodule=SmallDataModule(seed=0), ckpt_path=path, weights_only=True)
        assert_same(kept, driver.state_dict())
    assert_same(run.module.state_dict(), torch.load(path, weights_only=True)["state_dict"])
    tested = make_trainer(tmp_path, [SELC(momentum=0.7)])
    tested.test(make_module(cross_entropy()), datamodule=SmallDataModule(seed=0), ckpt_path=path)
    (driver,) = (callback for callback in tested.callbacks if isinstance(callback, RunDriver))
    assert driver.state_dict()["open_epoch"] is None
    assert set(tested.callbacks[1].section.stores) == {"target"}


def test_after_an_exception_inside_a_step(tmp_path):
    """What a module of ours has summed up over an unfinished batch is taken back as well."""

    class Crash(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.global_step == 8:
                raise RuntimeError("crash")

    whole = Run(tmp_path / "whole", "confidence")
    crash = [Crash(), OnExceptionCheckpoint(tmp_path)]
    with pytest.raises(RuntimeError, match="crash"):
        Run(tmp_path, "confidence", checkpoints=[every_epoch(tmp_path)], extra=crash)
    saved = torch.load(tmp_path / "on_exception.ckpt", weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    assert saved["module"]["sums"]["weights"] == {"acc": 24, "loss": 24}
    resumed = Run(tmp_path, "confidence", ckpt_path=tmp_path / "on_exception.ckpt")
    assert whole.figures(1)["train/acc"] == resumed.figures(1)["train/acc"]
    assert whole.trainer.global_step == resumed.trainer.global_step
