"""What each process of several hosts runs: one training run after another, until all are done.

    torchrun --nnodes 2 --nproc-per-node 2 ... -m tests.host_run FOLDER [CASE:STEP ...]

Checkpoints are written in the middle of epochs, and a run goes on from the last one that is there. In the backward pass
of step STEP of a CASE the last process kills itself, the first time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy import Storage
from lightning_noisy.callbacks import SELC, ConfidenceTracker, MaskRefresh, StepSeed, TrainingDynamics
from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.collectives import process_rank
from lightning_noisy.data import EpochSampler, LabeledImages, NoisyDataModule, ShardedSampler, SymmetricNoise
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.modules import CoTeaching, NoisyLabelModule
from lightning_noisy.state import RunDriver

NODES, PER_NODE = 2, 2
WORLD = NODES * PER_NODE
CLASSES, SAMPLES, BATCH, EPOCHS = 5, 64, 16, 3  # a batch of all processes together
STRATEGY = "ddp_find_unused_parameters_true"
"""Plain ddp arranges gradients anew after its first step, and so adds more than two of them up in another order."""
SAVED_EVERY = 3  # of the four steps of an epoch
RESULT = "{case}.{rank}.pt"
"""File of what a run has left in a process."""


class Data(NoisyDataModule):
    """Images (1, 4, 4) in float64, which are cropped at random."""

    num_classes = CLASSES

    def __init__(self, processes: int, sharded: bool = False) -> None:
        super().__init__(SymmetricNoise(0.4), batch_size=BATCH // processes, seed=3, sharded=sharded)

    @override
    def training_images(self) -> LabeledImages:
        x = torch.randn(SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return LabeledImages(x.__getitem__, (x.flatten(1)[:, :CLASSES] * 2).argmax(dim=1))

    test_images = training_images

    @override
    def training_transform(self) -> Callable[[Any], Tensor]:
        return v2.RandomCrop(4, padding=1)

    @override
    def evaluation_transform(self) -> Callable[[Any], Tensor]:
        return v2.Identity()

    @override
    def training_sampler(self, processes: int, rank: int) -> EpochSampler:
        as_many = self.sharded and processes == 1
        return AsMany(self._train, self.seed) if as_many else super().training_sampler(processes, rank)


class AsMany(ShardedSampler):
    """One process visits what several with shards would, batch by batch."""

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__(dataset, 1, 0, seed)
        self._many = ShardedSampler(dataset, WORLD, 0, seed)

    @override
    def order(self) -> Tensor:
        self._many.set_epoch(self.epoch)
        return self._many.order()


class Backbone(nn.Module):
    """Features (B, 8) of images."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh())

    @override
    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class Death(Callback):
    """The last process kills itself in the backward pass of a step, if it has not done so before."""

    def __init__(self, case: str, folder: Path, steps: dict[str, int]) -> None:
        self.note, self.step = folder / f"{case}.killed", steps.get(case)

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        here = trainer.global_step == self.step and trainer.global_rank == trainer.world_size - 1
        if here and not self.note.exists():
            self.note.touch()
            os.kill(os.getpid(), signal.SIGKILL)


sgd = partial(torch.optim.SGD, lr=0.6, momentum=0.9)


def single(loss: nn.Module) -> NoisyLabelModule:
    return NoisyLabelModule(Backbone(), LinearHead, loss, CLASSES, optimizer=sgd)


def plain() -> tuple[LightningModule, list[Callback], bool]:
    """Rows in every process, merged."""
    methods = [MaskRefresh(ratio=0.6), SELC(0.7, warmup_epochs=1), ConfidenceTracker(), TrainingDynamics()]
    return single(nn.CrossEntropyLoss()), methods, False


def sharded() -> tuple[LightningModule, list[Callback], bool]:
    """Rows in the process that trains on them."""
    loss = EarlyLearningRegularization(storage=Storage(sharded=True))
    return single(loss), [MaskRefresh(ratio=0.6, score="obd"), TrainingDynamics()], True


def strategy() -> tuple[LightningModule, list[Callback], bool]:
    """Selection within the batch of all processes."""
    module = CoTeaching(Backbone, LinearHead, nn.CrossEntropyLoss(), CLASSES, ramp_epochs=2, optimizer=sgd)
    return module, [TrainingDynamics()], False


CASES = {"plain": plain, "sharded": sharded, "strategy": strategy}


def train(case: str, folder: Path, kill: dict[str, int], nodes: int = 1, devices: int = 1) -> dict[str, Any]:
    """One run, and what it leaves in this process."""
    processes = nodes * devices
    torch.manual_seed(7)
    module, methods, in_shards = CASES[case]()
    data = Data(processes, in_shards)
    save = ModelCheckpoint(folder / case, "{step}", every_n_train_steps=SAVED_EVERY, save_last=True, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        num_nodes=nodes,
        devices=devices,
        strategy=STRATEGY if processes > 1 else "auto",
        max_epochs=EPOCHS,
        callbacks=[StepSeed(4), *methods, save, Death(case, folder, kill)],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / case / "last.ckpt"
    trainer.fit(module.double(), data, ckpt_path=str(last) if last.exists() else None)
    sections = RunDriver.of(trainer).sections.items()
    return {
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "rows": {f"{key}.{name}": one.rows() for key, section in sections for name, one in section.stores.items()},
        "parts": {key: tensors(section.state_dict()["parts"]) for key, section in sections},
        "history": {key: section.history for key, section in sections},
    }


def tensors(state: dict[str, Any]) -> dict[str, Any]:
    """What of a nested state are tensors."""
    kept = {name: tensors(value) if isinstance(value, dict) else value for name, value in state.items()}
    return {name: value for name, value in kept.items() if isinstance(value, (dict, Tensor))}


def main() -> None:
    """All cases, as one of the processes that torchrun has started."""
    torch.set_num_threads(1)
    folder, pairs = Path(sys.argv[1]), (pair.split(":") for pair in sys.argv[2:])
    kill = {case: int(step) for case, step in pairs}
    for case in CASES:
        result = train(case, folder, kill, NODES, PER_NODE)
        torch.save(result, folder / RESULT.format(case=case, rank=process_rank()))


if __name__ == "__main__":
    main()
