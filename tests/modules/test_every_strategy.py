"""What every strategy does: resume, copies, masks on all heads, clipping, accumulation, two processes, YAML."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_noisy import modules
from lightning_noisy.callbacks import ConfidenceTracker, MaskRefresh, StepSeed
from lightning_noisy.data import SymmetricNoise
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.losses import DynamicsAwareLoss
from lightning_noisy.modules import MultiNetworkModule, StrategyModule
from lightning_noisy.networks import Classifier
from lightning_noisy.state import RunDriver
from tests._dummies import isolate, needs_command_line, quiet
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.modules.strategies import STRATEGIES, make_backbone, make_data, make_strategy
from tests.small import MemoryLogger, assert_same

EPOCHS = 3


def test_none_is_left_out() -> None:
    assert set(STRATEGIES) == {name for name in modules.__all__ if not name.endswith("Module")}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_name_that_it_lists_has_a_value(name: str) -> None:
    """Tracing asks for all of them."""
    module = make_strategy(name)
    for listed in dir(module):
        getattr(module, listed)


def criterion(name: str) -> str:
    return "losses.0" if issubclass(getattr(modules, name), MultiNetworkModule) else "loss"


def callbacks(name: str) -> list[Callback]:
    return [StepSeed(1), MaskRefresh(ratio=0.5), ConfidenceTracker(criterion=criterion(name))]


class Run:
    def __init__(self, folder: Path, name: str, *extra: Callback, ckpt_path: Path | None = None):
        self.module, self.logger = make_strategy(name, dropout=0.3), MemoryLogger()
        options = {"max_epochs": EPOCHS, "enable_checkpointing": bool(extra), "logger": self.logger}
        self.trainer = make_trainer(folder, [*callbacks(name), *extra], **options)
        self.trainer.fit(self.module, datamodule=make_data(name), ckpt_path=ckpt_path)

    def state(self) -> dict[str, Any]:
        dump = self.trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        kept: dict[str, Any] = dump["callbacks"]["lightning_noisy"]
        return {"weights": dump["state_dict"], "optimizer": dump["optimizer_states"], "kept": kept}


class EpochStarts(ModelCheckpoint):
    """A checkpoint after each step; notes after which steps an epoch began."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        self.starts: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.starts.append(trainer.global_step)


def assert_resumes(folder: Path, name: str, wanted: Callable[[int, int], Iterable[int]]) -> None:
    """Resumes after the steps that are wanted of (start of the last epoch, number of all) equal the whole run."""
    checkpoint = EpochStarts(folder)
    whole = Run(folder, name, checkpoint)
    for step in wanted(checkpoint.starts[-1], whole.trainer.global_step):
        saved = torch.load(folder / f"step={step}.ckpt", weights_only=True)
        torch.save(saved, folder / "kept.ckpt")
        resumed = Run(folder / "again", name, ckpt_path=folder / "kept.ckpt")
        assert_same(whole.state(), resumed.state(), f"after step {step}")
        for key in set(whole.logger.seen) - {"train/loss_step", "epoch", "lr"}:
            seen, again = whole.logger.seen[key], resumed.logger.seen[key]
            assert_same(seen.get(EPOCHS - 1), again.get(EPOCHS - 1), f"{key} after step {step}")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resume_equals_an_uninterrupted_run(tmp_path: Path, name: str) -> None:
    """From the end of an epoch, and from within the last one, when every stage has been reached."""
    assert_resumes(tmp_path, name, lambda last, count: (last, (last + count) // 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resume_from_any_step_equals_an_uninterrupted_run(tmp_path: Path, name: str) -> None:
    assert_resumes(tmp_path, name, lambda last, count: range(1, count))


class Masks(Callback):
    """Which heads are masked."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        for name, module in pl_module.named_modules():
            if getattr(module, "edge_mask", None) is not None:
                self.seen.add(name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_loss_masked_heads_clipping_accumulation_and_half_precision_go(tmp_path: Path, name: str) -> None:
    module = make_strategy(name, DynamicsAwareLoss(0.8), head=KANHead)
    before = {key: value.clone() for key, value in module.named_parameters() if value.requires_grad}
    logger, masks = MemoryLogger(), Masks()
    trainer = make_trainer(
        tmp_path,
        [*callbacks(name), masks],
        max_epochs=EPOCHS,
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        precision="bf16-mixed",
        logger=logger,
    )
    trainer.fit(module, datamodule=make_data(name))
    assert all(value.isfinite().all() for value in module.state_dict().values() if value.is_floating_point())
    assert not [key for key, value in module.named_parameters() if key in before and torch.equal(value, before[key])]
    several = isinstance(module, MultiNetworkModule)
    assert masks.seen == ({f"networks.{n}.head" for n in range(2)} if several else {"network.head"})
    assert {"train/loss", "train/acc", "test/acc", "val/acc"} <= set(logger.seen)
    assert {f"test/{member}/acc" for member in module.members} <= set(logger.seen)


class Copier(Callback):
    """A copy of the module in the second epoch."""

    copy: Any = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.current_epoch == 1 and self.copy is None:
            self.copy = copy.deepcopy(pl_module)


@pytest.mark.parametrize("name", STRATEGIES)
def test_copies_and_weights_stand_on_their_own(tmp_path: Path, name: str) -> None:
    copier, module = Copier(), make_strategy(name)
    trainer = make_trainer(tmp_path, [copier], max_epochs=2)
    trainer.fit(module, datamodule=make_data(name))
    kept = {key: value.clone() for key, value in module.state_dict().items()}
    make_trainer(tmp_path, max_epochs=1).fit(copier.copy, datamodule=make_data(name))
    assert_same(dict(module.state_dict()), kept)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    several = isinstance(module, MultiNetworkModule)
    loaded = type(module).load_from_checkpoint(
        tmp_path / "saved.ckpt",
        backbone=make_backbone if several else make_backbone(),
        head=LinearHead,
        loss=nn.CrossEntropyLoss(),
    )
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded.eval()(images), module.eval()(images))


@dataclass(frozen=True)
class Fit:
    folder: str
    name: str
    processes: int = 2


class NoBatchStatistics(Callback):
    """Networks whose batch normalization works with running statistics, so that a batch may lie in two processes."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        for module in pl_module.modules():
            if isinstance(module, Classifier):
                module.backbone.eval()


def fit_on(rank: int, run: Fit) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    torch.set_num_threads(1)
    module, logger = make_strategy(run.name).double(), MemoryLogger()
    options: dict[str, Any] = {"devices": run.processes, "strategy": "ddp"} if run.processes > 1 else {}
    data = make_data(
        run.name, noise=SymmetricNoise(0.4), val_fraction=0.0, batch_size=16 // run.processes, num_samples=44
    )
    trainer = make_trainer(
        run.folder, [NoBatchStatistics()], max_epochs=EPOCHS, precision="64-true", logger=logger, **options
    )
    trainer.fit(module, datamodule=data)
    sections = RunDriver.of(trainer).sections
    stores = {f"{key}.{n}": s.values for key, section in sections.items() for n, s in section.stores.items()}
    return dict(module.state_dict()), stores, module.history


EACH_ITS_OWN_WAY = ("CoTeaching", "JoCoR", "DISC", "SED", "GSSDual")
"""The others select by the same functions, and are slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in EACH_ITS_OWN_WAY else pytest.param(name, marks=pytest.mark.slow)
        for name, strategy in STRATEGIES.items()
        if strategy.distributed
    ],
)
def test_two_processes_equal_one(pool: Pool, tmp_path: Path, name: str) -> None:
    """The last batch has another size, so a mean over processes of means would show."""
    run = Fit(str(tmp_path), name)
    ranks = pool.run(fit_on, run)
    weights, stores, history = fit_on(0, replace(run, processes=1))
    for theirs, rows, seen in ranks:
        for key, value in weights.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-6, atol=1e-8, msg=key)
        assert rows.keys() == stores.keys()
        for key, value in stores.items():
            torch.testing.assert_close(rows[key], value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=key)
        for epoch, metrics in history.items():
            chosen = {key: value for key, value in metrics.items() if key.startswith("selection")}
            assert {key: seen[epoch][key] for key in chosen} == pytest.approx(chosen), epoch


CONFIG = """
base: quickstart
trainer:
  max_epochs: 1
  callbacks:
    - class_path: lightning_noisy.callbacks.MaskRefresh
model:
  class_path: lightning_noisy.modules.{name}
  init_args:
    num_classes: 10
    backbone: {{class_path: lightning_noisy.networks.SmallCNN, init_args: {{width: 4}}}}
    head: {{class_path: lightning_noisy.heads.LinearHead}}
    loss: {{class_path: torch.nn.CrossEntropyLoss}}
data:
  batch_size: 512
  views: {views}
"""


WITHOUT_QUICK_RECIPE = ("CoLDL", "SURE")
"""The command line runs all others in the tests of recipes."""


@needs_command_line
@pytest.mark.parametrize(
    "name",
    [name if name in WITHOUT_QUICK_RECIPE else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES],
)
def test_it_is_written_in_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    isolate(monkeypatch, tmp_path)
    views = ["weak"] * STRATEGIES[name].views
    (tmp_path / "mine.yaml").write_text(CONFIG.format(name=name, views=views))
    cli = quiet("fit", "mine.yaml")
    assert type(cli.model) is getattr(modules, name)
    assert isinstance(cli.model, StrategyModule)
