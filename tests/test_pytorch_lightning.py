"""The callbacks in projects of ``pytorch_lightning``, which has each class of ``lightning.pytorch`` a second time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import CDR, SELC, ConfidenceTracker, LossMemory, MaskRefresh, PredictionWriter, StepSeed
from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader, SymmetricNoise
from lightning_noisy.data.manifest import build_manifest, show_transitions
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.private_api import is_a
from tests.distributed import Pool
from tests.foreign import make_tensors
from tests.small import SmallDataModule, assert_same, make_module

pl = pytest.importorskip("pytorch_lightning")

SAMPLES = 32


def project(library: Any, **replaced: Any) -> Any:
    """A module of ``lightning.pytorch`` or of ``pytorch_lightning``, from the same seed."""

    class Project(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2))
            self.classifier = nn.Linear(8, 4)
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.body(x))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.criterion(self(batch[0]), batch[1])

        def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(batch[0]).softmax(dim=1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    torch.manual_seed(0)
    module = Project()
    for name, value in replaced.items():
        setattr(module, name, value)
    return module


def train_set() -> IndexedDataset:
    x, noisy, _ = make_tensors(SAMPLES)
    return IndexedDataset(TensorDataset(x, noisy))


def loader(**options: Any) -> ResumableLoader:
    dataset = train_set()
    return ResumableLoader(dataset, batch_size=8, sampler=EpochSampler(dataset, seed=3), **options)


def trainer(library: Any, folder: Path, callbacks: Any = (), max_epochs: int = 3, **options: Any) -> Any:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    quiet |= {"devices": 1, "enable_checkpointing": False}
    return library.Trainer(default_root_dir=folder, max_epochs=max_epochs, callbacks=[*callbacks], **quiet | options)


def members() -> list[str]:
    return [SELC(momentum=0.7), MaskRefresh("classifier", ratio=0.5), ConfidenceTracker(), StepSeed(5)]


def saving(library: Any, folder: Path, step: int) -> dict[str, Any]:
    checkpoint = library.callbacks.ModelCheckpoint(folder, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    return {"callbacks": [*members(), checkpoint], "enable_checkpointing": True}


def kept(fitted: Any) -> dict[str, Any]:
    """All that a run ends with: weights, and what the package keeps."""
    driver = next(callback for callback in fitted.callbacks if callback.state_key == "lightning_noisy")
    return {"weights": fitted.lightning_module.state_dict(), "state": driver.state_dict()}


def test_both_names_are_one() -> None:
    for library in (lightning.pytorch, pl):
        assert is_a(project(library), "Trainer", "LightningModule")
        assert not is_a(project(library), "Trainer", "Module")
    assert not is_a(nn.Linear(1, 1), "Linear")
    assert not is_a(type("LightningModule", (), {})(), "LightningModule")


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_and_its_resume_equal_those_of_lightning(tmp_path: Path, step: int) -> None:
    runs = {}
    for library in (lightning.pytorch, pl):
        folder = tmp_path / library.__name__
        runs[library] = trainer(library, folder, **saving(library, folder, step))
        runs[library].fit(project(library), loader())
    whole = kept(runs[pl])
    assert_same(kept(runs[lightning.pytorch]), whole)
    again = trainer(pl, tmp_path, members())
    again.fit(project(pl), loader(), ckpt_path=tmp_path / "pytorch_lightning" / f"step={step}.ckpt")
    assert_same(kept(again), whole)


def test_an_exception_and_a_broken_file_in_between(tmp_path: Path) -> None:
    def broken(loss: Tensor) -> None:
        if module.trainer.global_step == 6:
            raise RuntimeError("broken")

    whole = trainer(pl, tmp_path / "whole", [StepSeed(1), SELC(momentum=0.7)])
    whole.fit(project(pl), loader())
    stop = [StepSeed(1), SELC(momentum=0.7), pl.callbacks.OnExceptionCheckpoint(tmp_path, "last")]
    module = project(pl, on_before_backward=broken)
    breaking = trainer(pl, tmp_path, stop, plugins=[AtomicCheckpointIO()], enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="broken"):
        breaking.fit(module, loader())
    path = tmp_path / "last.ckpt"
    path.rename(tmp_path / "last.previous.ckpt")
    path.write_bytes(b"broken")
    resumed = trainer(pl, tmp_path, [StepSeed(1), SELC(momentum=0.7)], plugins=[AtomicCheckpointIO()])
    resumed.fit(project(pl), loader(), ckpt_path=path)
    assert_same(kept(whole), kept(resumed))


def fit_on_two(rank: int, folder: Path) -> list[str]:
    """The checkpoints that a run leaves whose one epoch has four batches on each process."""
    torch.manual_seed(0)
    options = {"strategy": "ddp", "devices": 2, **saving(pl, folder, 4)}
    trainer(pl, folder, max_epochs=1, **options).fit(project(pl), DataLoader(train_set(), 4))
    return sorted(path.name for path in folder.glob("*.ckpt"))


def test_a_checkpoint_of_two_processes_holds_all_rows(pool: Pool, tmp_path: Path) -> None:
    assert "step=4.ckpt" in pool.run(fit_on_two, tmp_path)[0]
    saved = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    (stores,) = (section["stores"] for section in saved.values() if "target" in section["stores"])
    assert (stores["target"]["values"].sum(dim=1) > 0).sum() == SAMPLES


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"])
@pytest.mark.parametrize("callback", [MaskRefresh("classifier"), CDR(0.5)])
def test_strategies_that_shard_are_refused(strategy: str, callback: Any) -> None:
    cls = getattr(pl.strategies, strategy)
    fitting = SimpleNamespace(strategy=cls.__new__(cls))
    with pytest.raises(NoisyLabelError, match=f"under {strategy}, which shards its weights"):
        callback.on_fit_start(fitting, project(pl))


def test_figures_reach_tensorboard(tmp_path: Path) -> None:
    _, noisy, clean = make_tensors(SAMPLES)
    logger = pl.loggers.TensorBoardLogger(tmp_path, name="run")
    fitting = trainer(pl, tmp_path, [ConfidenceTracker(clean, figure_every_n_epochs=1)], logger=logger)
    fitting.fit(project(pl), loader())
    show_transitions(fitting, tmp_path, build_manifest(clean, noisy, 4, SymmetricNoise(0.4), 0))
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    assert len(events.Images("train/conf")) >= 3
    assert len(events.Images("noise/transition")) == 1
    assert (Path(logger.log_dir) / "figures" / "confidence.png").exists()


def test_several_loaders(tmp_path: Path) -> None:
    combined = pl.utilities.CombinedLoader(
        {"a": DataLoader(train_set(), 16), "b": DataLoader(train_set(), 8)}, "min_size"
    )
    module, callback = project(pl), SELC(momentum=0.7, index_key="b")
    module.training_step = lambda batch, batch_idx: module.criterion(module(batch["b"][0]), batch["b"][1])
    trainer(pl, tmp_path, [callback], max_epochs=1).fit(module, combined)
    table = callback.section.stores["target"].values
    assert (table[:16] != F.one_hot(make_tensors(SAMPLES)[1], 4)[:16]).any(dim=1).all()


def test_a_loss_with_memory_needs_its_line_here_too(tmp_path: Path) -> None:
    module = project(pl, criterion=EarlyLearningRegularization())
    module.training_step = lambda batch, batch_idx: module.criterion(module(batch[0]), batch[1], index=batch[2])
    with pytest.raises(NoisyLabelError, match=r"add the callback `LossMemory\(\)`"):
        trainer(pl, tmp_path).fit(module, loader())
    trainer(pl, tmp_path, [LossMemory()], max_epochs=1).fit(module, loader())


def test_predictions_are_written_with_their_indices(tmp_path: Path) -> None:
    module = project(pl)
    predicting = trainer(pl, tmp_path, [PredictionWriter()])
    for _ in range(2):
        predicting.predict(module, DataLoader(train_set(), 5))
    with np.load(tmp_path / "predictions.npz") as file, torch.no_grad():
        assert file["index"].tolist() == list(range(SAMPLES))
        expected = module.eval()(make_tensors(SAMPLES)[0]).softmax(dim=1)
        np.testing.assert_allclose(file["probabilities"], expected.numpy(), rtol=1e-5)


def test_a_module_of_ours_is_refused_in_one_line(tmp_path: Path) -> None:
    """By the Trainer itself, which has nothing of ours yet that could say it better."""
    with pytest.raises(TypeError, match=r"^`model` must be a `LightningModule` .*, got `NoisyLabelModule`$"):
        trainer(pl, tmp_path).fit(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule())
