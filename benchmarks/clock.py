"""How long a training takes on a device, by marks that make the device wait for nothing.

On a GPU a mark is an event in its stream: the time between two has all work in it that was queued between them, and
what the GPU waited for the host. On a CPU it is a reading of the clock.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from typing_extensions import override


class Laps:
    """The times between marks.

    Args:
        device: Whose time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Now."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """From each mark to the next; waits for the device."""
        wait(self.device)
        if self.device.type == "cuda":
            return [start.elapsed_time(end) for start, end in pairwise(self._marks)]
        return [1e3 * (end - start) for start, end in pairwise(self._marks)]


class StepClock:
    """The steps of a fit, and what is between them: fetching, moving and making a batch, or waiting for it.

    Args:
        skipped: First steps that do not count.
    """

    def __init__(self, skipped: int) -> None:
        self._skipped = skipped
        self._laps: Laps

    def around(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """These callbacks between a first and a last one, which mark the start and the end of each step."""

        def begin(trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 0:
                self._laps = Laps(module.device)
            self._laps.mark()

        end = LambdaCallback(on_train_batch_end=lambda *_: self._laps.mark())
        return [LambdaCallback(on_train_batch_start=begin), *callbacks, end]

    def step(self) -> float:
        """Milliseconds from the start of a step to that of the next, a median."""
        inside, between = self._parts()
        return statistics.median(a + b for a, b in zip(inside, between, strict=False))

    def share_between(self) -> float:
        """Share of it that is between the end of a step and the start of the next."""
        inside, between = map(statistics.median, self._parts())
        return between / (inside + between)

    def _parts(self) -> tuple[list[float], list[float]]:
        laps = self._laps.milliseconds()[2 * self._skipped :]
        return laps[::2], laps[1::2]


class EpochClock(Callback):
    """Whole epochs, from the start of each to that of the next."""

    laps: Laps

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.laps = Laps(pl_module.device)
        self.laps.mark()

    @override
    def on_train_end(self, *_: Any) -> None:
        self.laps.mark()

    def seconds(self) -> float:
        """Of an epoch, a median without the first."""
        return statistics.median(self.laps.milliseconds()[1:]) / 1e3


def wait(device: torch.device) -> None:
    """Until a device has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now(device: torch.device) -> float:
    """Seconds: on a CPU the processor's time, of which other programs take none; on a GPU the time when it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def by_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each run gives, over rounds in which they take turns."""
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seen[name].append(run())
    return {name: statistics.median(values) for name, values in seen.items()}


def quiet_trainer(device: torch.device, callbacks: Sequence[Callback], **options: Any) -> Trainer:
    """A Trainer that says and writes nothing."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    return Trainer(
        accelerator=accelerator(device),
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def accelerator(device: torch.device) -> str:
    """What Lightning calls it."""
    return "gpu" if device.type == "cuda" else "cpu"
