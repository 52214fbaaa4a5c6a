"""Epochs on images as large as CIFAR-10's, with the package's own loader: seconds, images, waiting, memory, overhead.

Pixels are random, which a network takes as long for. What it does not show: reading files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import nn
from typing_extensions import override

from benchmarks.clock import EpochClock, StepClock, accelerator, by_turns, quiet_trainer
from benchmarks.full_step import Way
from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.data import CIFAR10DataModule
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.networks import CNN8, ResNet18, SmallCNN

IMAGES, BATCH = 50_000, 128
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": ResNet18,
    "CNN8": CNN8,
    "small CNN": partial(SmallCNN, 3, 4, 16),
}
Head = Callable[[int, int], nn.Module]
KAN: Head = partial(KANHead, normalize=True)
VARIANTS: dict[str, tuple[Head, Callable[[], list[Callback]]]] = {
    "linear": (LinearHead, list),
    "masked": (LinearHead, lambda: [MaskRefresh(ratio=0.5)]),
    "KAN": (KAN, list),
    "masked KAN": (KAN, lambda: [MaskRefresh(ratio=0.5)]),
}


@dataclass(frozen=True)
class Pixels:
    """What a data module uses of torchvision's CIFAR10."""

    data: Any
    targets: list[int]


class RandomCIFAR10(CIFAR10DataModule):
    """As many images as CIFAR-10 has, or fewer.

    Args:
        images: Of the training set; the test set has a fifth.
        **options: As of ``CIFAR10DataModule``.
    """

    def __init__(self, images: int = IMAGES, **options: Any) -> None:
        super().__init__(**options)
        self.images = images

    @override
    def open(self, train: bool, download: bool = False) -> Pixels:
        count = self.images if train else self.images // 5
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return Pixels(pixels, [row % 10 for row in range(count)])


@dataclass(frozen=True)
class Fit:
    """A fit that is timed."""

    way: Way
    backbone: str
    batches: int
    """Of an epoch, of the 391 that there are."""
    epochs: int
    skipped: int
    batch_size: int = BATCH

    def run(self, head: Head, callbacks: Sequence[Callback]) -> tuple[StepClock, EpochClock]:
        """Train, and give back both clocks."""
        steps, whole = StepClock(self.skipped), EpochClock()
        make = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
        module = NoisyLabelModule(BACKBONES[self.backbone](), head, nn.CrossEntropyLoss(), 10, optimizer=make)
        length = {"max_epochs": self.epochs, "limit_train_batches": self.batches, "limit_val_batches": 0}
        trainer = quiet_trainer(
            self.way.device, [whole, *steps.around(callbacks)], precision=self.way.precision, **length
        )
        data = RandomCIFAR10(self.batches * self.batch_size, batch_size=self.batch_size, num_workers=0, seed=0)
        trainer.fit(self.way.laid_out(module), data)  # type: ignore[arg-type]
        return steps, whole

    def step(self, head: Head, callbacks: Callable[[], list[Callback]]) -> float:
        """Milliseconds of a step."""
        return self.run(head, callbacks())[0].step()


def epochs(
    way: Way, backbones: Sequence[str], batches: int, length: int, skipped: int, batch_size: int = BATCH
) -> dict[str, float]:
    """Seconds an epoch of training, images a second, the share between steps, and on a GPU its memory.

    With fewer batches than an epoch has, its time is in proportion.
    """
    figures = {}
    for name in backbones:
        if way.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(way.device)
        steps, whole = Fit(way, name, batches, length, skipped, batch_size).run(LinearHead, [])
        seconds = whole.seconds() * IMAGES / (batches * batch_size)
        figures[f"{name}: s an epoch"] = seconds
        figures[f"{name}: images/s"] = IMAGES / seconds
        figures[f"{name}: share between steps"] = steps.share_between()
        if way.device.type == "cuda":
            figures[f"{name}: peak MiB"] = torch.cuda.max_memory_allocated(way.device) / 2**20
    return figures


def overhead(
    way: Way, backbones: Sequence[str], batches: int, skipped: int, rounds: int, batch_size: int = BATCH
) -> dict[str, float]:
    """A step with masks, with a KAN head and with both, in units of that with a linear head."""
    figures = {}
    for name in backbones:
        fit = Fit(way, name, batches, 1, skipped, batch_size)
        runs = {variant: partial(fit.step, *parts) for variant, parts in VARIANTS.items()}
        medians = by_turns(runs, rounds)
        figures[f"{name}, linear: ms a step"] = medians["linear"]
        for variant in list(VARIANTS)[1:]:
            figures[f"{name}, {variant} / linear"] = medians[variant] / medians["linear"]
    return figures


def cell(way: Way, recipe: str, images: int, length: int, more: Sequence[str] = ()) -> dict[str, float]:
    """Minutes that 120 epochs of a recipe take, with its callbacks and the test set in each epoch."""
    from lightning_noisy.cli import main as command_line  # it sets the seed of this process

    with TemporaryDirectory() as folder:
        data = ["--data=benchmarks.image_epochs.RandomCIFAR10", f"--data.images={images}", "--data.num_workers=0"]
        place = [f"--trainer.accelerator={accelerator(way.device)}", f"--trainer.default_root_dir={folder}"]
        size = [f"--trainer.max_epochs={length}", f"--trainer.precision={way.precision}"]
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=benchmarks.clock.EpochClock"]
        cli = command_line(["fit", f"--config={recipe}", *data, *place, *size, *quiet, *more])
    (clock,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, EpochClock))
    return {f"{recipe}: minutes of 120 epochs": 120 * clock.seconds() / 60 * IMAGES / images}
