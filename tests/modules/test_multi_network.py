"""Two networks: each has its own criterion, rows, metrics and mask, over a resume and two processes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_noisy.callbacks import SELC, ConfidenceTracker, MaskRefresh, MaskTracker, StepSeed
from lightning_noisy.data import SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import EarlyLearningRegularization, NoiseAttentionLoss
from lightning_noisy.modules import MultiNetworkModule
from lightning_noisy.networks import SmallCNN
from lightning_noisy.state import RunDriver
from tests._dummies import CoTeaching, isolate, needs_command_line, quiet
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.small import NUM_CLASSES, MemoryLogger, SmallDataModule, assert_same

SAMPLES, MOMENTUM, CRITERIA = 40, 0.7, ("losses.0", "losses.1")


def make_module(loss: Any = None, dropout: float = 0.0) -> MultiNetworkModule:
    torch.manual_seed(0)
    return CoTeaching(
        lambda: SmallCNN(width=4, num_features=8, dropout=dropout),
        LinearHead,
        torch.nn.CrossEntropyLoss() if loss is None else loss,
        NUM_CLASSES,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    )


class Recorder(Callback):
    """What each criterion is called with, per batch: index, logits, and the mask of its head."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, list[Tensor], list[Tensor]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.now: list[Tensor] = []
        for loss in pl_module.losses:
            loss.register_forward_hook(lambda _, args, output: self.now.append(args[0].detach().clone()))

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.now.clear()

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        masks = [network.head.edge_mask.clone() for network in pl_module.networks]
        self.calls.append((trainer_batch(trainer), list(self.now), masks))


def trainer_batch(trainer: Trainer) -> Tensor:
    batch = RunDriver.of(trainer).batch
    assert batch is not None
    return batch.index().clone()


def softmax(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def parts(recorder: Recorder | None = None) -> list[Callback]:
    at_each = [
        kind for name in CRITERIA for kind in (SELC(MOMENTUM, criterion=name), ConfidenceTracker(criterion=name))
    ]
    return [StepSeed(1), *at_each, MaskRefresh(ratio=0.5), *([recorder] if recorder else [])]


def test_networks_start_apart_and_losses_are_their_own() -> None:
    module = make_module(NoiseAttentionLoss())
    first, second = (network.state_dict() for network in module.networks)
    assert first.keys() == second.keys()
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert module.losses[0].branch is not module.losses[1].branch
    assert not torch.equal(module.losses[0].branch.weight, module.losses[1].branch.weight)


def test_evaluated_is_the_mean_of_the_probabilities() -> None:
    module = make_module().eval()
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = np.mean([softmax(network(images)) for network in module.networks], axis=0)
        np.testing.assert_allclose(module(images).softmax(dim=1).numpy(), expected, rtol=1e-5)


def test_rows_of_both_networks_are_those_of_the_recursion(tmp_path: Path) -> None:
    """Every sample of the batch moves its row, also those that the strategy leaves out."""
    recorder = Recorder()
    callbacks, data = parts(recorder), SmallDataModule(seed=0)
    make_trainer(tmp_path, callbacks, max_epochs=3).fit(make_module(), datamodule=data)
    for network, selc in enumerate(callback for callback in callbacks if isinstance(callback, SELC)):
        rows = np.eye(NUM_CLASSES)[data.noisy_targets.numpy()]
        for index, logits, _ in recorder.calls:
            rows[index] = MOMENTUM * rows[index] + (1 - MOMENTUM) * softmax(logits[network])
        np.testing.assert_allclose(selc.section.stores["target"].values.numpy(), rows, atol=1e-6)
    different = [not torch.equal(*logits) for _, logits, _ in recorder.calls]
    assert all(different)


def test_both_heads_are_masked_each_by_its_own_weights(tmp_path: Path) -> None:
    recorder = Recorder()
    make_trainer(tmp_path, parts(recorder), max_epochs=1).fit(make_module(), datamodule=SmallDataModule(seed=0))
    for _, _, masks in recorder.calls:
        assert [int(mask.sum()) for mask in masks] == [NUM_CLASSES // 2 * 8] * 2
    assert any(not torch.equal(*masks) for _, _, masks in recorder.calls)


def test_metrics_and_figures_bear_the_criterion(tmp_path: Path) -> None:
    logger, callbacks = MemoryLogger(), parts()
    make_trainer(tmp_path, callbacks, max_epochs=2, logger=logger).fit(
        make_module(), datamodule=SmallDataModule(seed=0)
    )
    for name in CRITERIA:
        assert {f"train/conf/{name}/clean", f"train/conf/{name}/noisy", f"target/{name}/correction_acc"} <= set(
            logger.seen
        )
    assert logger.seen["train/conf/losses.0/clean"] != logger.seen["train/conf/losses.1/clean"]
    trackers = [callback.figures for callback in callbacks if isinstance(callback, ConfidenceTracker)]
    assert [tracker.name for tracker in trackers] == ["confidence-losses.0", "confidence-losses.1"]
    figure = trackers[0].draw()
    assert figure is not None
    assert any(len(axes.lines) for axes in figure.axes)


def test_a_tracker_of_one_mask_asks_which(tmp_path: Path) -> None:
    with pytest.raises(NoisyLabelError, match=r"tracks one head, but CoTeaching has networks\.0\.head, networks\.1"):
        make_trainer(tmp_path, [MaskTracker()]).fit(make_module(), datamodule=SmallDataModule(seed=0))


def test_each_loss_with_memory_keeps_its_own_rows(tmp_path: Path) -> None:
    recorder = Recorder()
    loss = EarlyLearningRegularization(lam=1.0, momentum=0.6)
    trainer = make_trainer(tmp_path, [StepSeed(1), MaskRefresh(ratio=0.5), recorder], max_epochs=2)
    trainer.fit(make_module(loss), datamodule=SmallDataModule(seed=0))
    sections = RunDriver.of(trainer).sections
    for network, name in enumerate(CRITERIA):
        rows = np.zeros((SAMPLES, NUM_CLASSES))
        for index, logits, _ in recorder.calls:
            p = np.clip(softmax(logits[network]), 1e-4, 1 - 1e-4)
            rows[index] = 0.6 * rows[index] + 0.4 * p / p.sum(axis=1, keepdims=True)
        kept = sections[f"loss {name}"].stores["prediction"].values.numpy()
        np.testing.assert_allclose(kept, rows, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", [7, 10])
def test_a_resume_equals_an_uninterrupted_run(tmp_path: Path, step: int) -> None:
    def fit(ckpt_path: Path | None = None) -> Any:
        checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        loss = EarlyLearningRegularization(lam=1.0, momentum=0.6)
        trainer = make_trainer(tmp_path, [*parts(), checkpoint], max_epochs=3, enable_checkpointing=True)
        trainer.fit(make_module(loss, dropout=0.3), datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
        return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    whole = fit()
    saved = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
    torch.save(saved, tmp_path / "kept.ckpt")
    resumed = fit(tmp_path / "kept.ckpt")
    for key in ("state_dict", "optimizer_states"):
        assert_same(whole[key], resumed[key])
    assert_same(whole["callbacks"]["lightning_noisy"], resumed["callbacks"]["lightning_noisy"])


class Announced(CoTeaching):
    """Notes the epochs that it is told of, and whether their loader has begun."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.told: list[tuple[int, int]] = []

    def prepare_epoch(self, epoch: int) -> None:
        self.told.append((epoch, self.trainer.global_step))


def announced(folder: Path, checkpoint: ModelCheckpoint | None, ckpt_path: Path | None = None) -> list[tuple[int, int]]:
    module = make_module()
    module.__class__, module.told = Announced, []
    callbacks = [] if checkpoint is None else [checkpoint]
    trainer = make_trainer(folder, callbacks, max_epochs=4, enable_checkpointing=checkpoint is not None)
    trainer.fit(module, datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
    return list(module.told)


@pytest.mark.parametrize(
    ("options", "name", "later"),
    [
        ({"every_n_train_steps": 1}, "epoch=1-step=7", [(2, 10), (3, 15)]),
        ({"every_n_train_steps": 1}, "epoch=1-step=10", [(2, 10), (3, 15)]),
        ({"every_n_epochs": 1}, "epoch=1-step=10", [(2, 10), (3, 15)]),
        ({"every_n_epochs": 1, "save_on_train_epoch_end": False}, "epoch=1-step=10", [(2, 10), (3, 15)]),
    ],
    ids=["inside", "last batch", "end", "before the end"],
)
def test_each_epoch_is_prepared_once_also_over_a_resume(
    tmp_path: Path, options: dict[str, Any], name: str, later: list[tuple[int, int]]
) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1, **options)
    assert announced(tmp_path, checkpoint) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert announced(tmp_path / "again", None, tmp_path / f"{name}.ckpt") == later


@dataclass(frozen=True)
class Fit:
    folder: str
    processes: int = 2


def fit_on(rank: int, run: Fit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.set_num_threads(1)
    module = make_module(EarlyLearningRegularization(lam=1.0, momentum=0.6)).double()
    for network in module.networks:
        network.backbone.eval()
    options: dict[str, Any] = {"devices": run.processes, "strategy": "ddp"} if run.processes > 1 else {}
    data = SmallDataModule(SymmetricNoise(0.4), val_fraction=0.0, seed=0, batch_size=16 // run.processes)
    trainer = make_trainer(run.folder, parts()[1:], max_epochs=2, precision="64-true", **options)
    trainer.fit(AllKept.of(module), datamodule=data)
    sections = RunDriver.of(trainer).sections
    stores = {f"{key}.{n}": s.values for key, section in sections.items() for n, s in section.stores.items()}
    return dict(module.state_dict()), stores


class AllKept(CoTeaching):
    """Selection of halves depends on the batch of a process; the rows must not."""

    @classmethod
    def of(cls, module: MultiNetworkModule) -> MultiNetworkModule:
        module.__class__ = cls
        return module

    def step(self, batch: Any) -> Tensor:
        first, second = (seen.losses for seen in self.all_losses(self.all_outputs(batch.images), batch))
        return first.mean() + second.mean()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for network in self.networks:
            network.backbone.eval()  # no batch statistics


def test_two_processes_equal_one(pool: Pool, tmp_path: Path) -> None:
    run = Fit(str(tmp_path))
    ranks = pool.run(fit_on, run)
    weights, stores = fit_on(0, replace(run, processes=1))
    assert {"loss losses.0.prediction", "loss losses.1.prediction"} <= set(stores)
    for theirs, rows in ranks:
        for name, value in weights.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-6, atol=1e-8, msg=name)
        for name, value in stores.items():
            torch.testing.assert_close(rows[name], value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)


def test_a_copy_of_the_module_trains_on_its_own(tmp_path: Path) -> None:
    copies = []

    class Copier(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            copies.append(copy.deepcopy(pl_module))

    module = make_module(EarlyLearningRegularization(lam=1.0, momentum=0.6))
    trainer = make_trainer(tmp_path, [Copier()], max_epochs=1)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    kept = RunDriver.of(trainer).sections["loss losses.0"].stores["prediction"].values.clone()
    make_trainer(tmp_path, max_epochs=1).fit(copies[0], datamodule=SmallDataModule(seed=0))
    assert torch.equal(RunDriver.of(trainer).sections["loss losses.0"].stores["prediction"].values, kept)


CONFIG = """
base: quickstart
trainer:
  max_epochs: 1
  callbacks:
    - class_path: lightning_noisy.callbacks.MaskRefresh
    - {class_path: lightning_noisy.callbacks.SELC, init_args: {criterion: losses.1}}
model:
  class_path: tests._dummies.CoTeaching
  init_args:
    num_classes: 10
    backbone: {class_path: lightning_noisy.networks.SmallCNN, init_args: {width: 4}}
    head: {class_path: lightning_noisy.heads.LinearHead}
    loss: {class_path: lightning_noisy.losses.EarlyLearningRegularization}
"""


@needs_command_line
def test_a_strategy_is_written_in_yaml_as_a_module_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path)
    (tmp_path / "two.yaml").write_text(CONFIG)
    cli = quiet("fit", "two.yaml")
    first, second = (network.backbone.state_dict() for network in cli.model.networks)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "runs" / "two").is_dir()
