"""What Python does in a training step beside the network: ours against plain Lightning.

    OMP_NUM_THREADS=1 python -m benchmarks.host_time

An MLP (192-128-10) on cached features, batch 128: the network itself takes a part of a millisecond, so a step is mostly
what the frameworks do around it. All rows train the same network on the same loader, with SGD:

- plain Lightning: a module whose step is ``F.cross_entropy``, and nothing is logged;
- plain Lightning, logging: the same with ``self.log`` in each step;
- ours: `NoisyLabelModule` with cross entropy;
- ours, SELC + masks: with `SELC`, `MaskRefresh`, `StepSeed`, `ConfidenceTracker` and `TrainingDynamics`;
- the first and the last of these, N = ...: the same on larger training sets, in batches of the same size, where samples
  lie further apart in memory, whoever trains.

In each round every row is trained anew, in turn. A step is the time from the start of one batch to the start of the
next, the loader's work in it; the first steps of a fit are left out. Medians over the steps, then over the rounds. It
does not show accelerators, where the host runs ahead, nor the ends of epochs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from benchmarks.clock import quiet_trainer
from benchmarks.random_samples import CLASSES, RandomSamples
from benchmarks.record import RESULTS, describe_machine, write_record
from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import SELC, ConfidenceTracker, MaskRefresh, StepSeed, TrainingDynamics
from lightning_noisy.data import SymmetricNoise
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import MLP

WIDTH, HIDDEN, BATCH = 192, 128, 128
CPU = torch.device("cpu")
SKIPPED = 20
"""First steps of a fit that do not count."""
PLAIN, LOGGING, OURS, FULL = "plain Lightning", "plain Lightning, logging", "ours", "ours, SELC + masks"
TARGETS = {OURS: 0.15, FULL: 0.5}
"""Milliseconds that a step may take beyond plain Lightning's."""


class Plain(LightningModule):
    """What one writes without this package."""

    def __init__(self, logs: bool) -> None:
        super().__init__()
        self.network = nn.Sequential(MLP(WIDTH, (HIDDEN,)), nn.Linear(HIDDEN, CLASSES))
        self.logs = logs

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        if self.logs:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class StepTimes(Callback):
    """Seconds from the start of each batch to that of the next."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        self.starts.append(time.perf_counter())

    def median(self) -> float:
        """Of the steps that count, in milliseconds."""
        starts = self.starts[SKIPPED:]
        return 1e3 * statistics.median(later - start for start, later in pairwise(starts))


def ours() -> LightningModule:
    """Our module with cross entropy."""
    return NoisyLabelModule(
        MLP(WIDTH, (HIDDEN,)),
        LinearHead,
        nn.CrossEntropyLoss(),
        CLASSES,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    )


def everything() -> list[Callback]:
    """Callbacks of the row that has them."""
    return [SELC(0.9, warmup_epochs=0), MaskRefresh(ratio=0.5), StepSeed(0), ConfidenceTracker(), TrainingDynamics()]


Row = tuple[Callable[[], LightningModule], Callable[[], list[Callback]], int]


def rows(samples: Sequence[int]) -> dict[str, Row]:
    """What is measured: module, callbacks, samples."""
    first, *larger = samples
    return {
        PLAIN: (lambda: Plain(False), list, first),
        LOGGING: (lambda: Plain(True), list, first),
        OURS: (ours, list, first),
        FULL: (ours, everything, first),
        **{
            f"{name}, N = {count:,}": row
            for count in larger
            for name, row in {PLAIN: (lambda: Plain(False), list, count), FULL: (ours, everything, count)}.items()
        },
    }


def one_fit(row: Row, steps: int, device: torch.device) -> float:
    """Milliseconds of a step in a fit of so many."""
    module, callbacks, samples = row
    times = StepTimes()
    trainer = quiet_trainer(device, [times, *callbacks()], max_epochs=-1, max_steps=steps)
    trainer.fit(module(), RandomSamples((WIDTH,), samples, SymmetricNoise(0.4), batch_size=BATCH))
    return times.median()


def measure(samples: Sequence[int], rounds: int, steps: int, device: torch.device = CPU) -> dict[str, Any]:
    """Milliseconds of a step by row, with what it has beyond plain Lightning on as many samples, and in proportion."""
    taken: dict[str, list[float]] = {name: [] for name in rows(samples)}
    for _ in range(rounds):
        for name, row in rows(samples).items():
            taken[name].append(one_fit(row, steps, device))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    found = {}
    for name, median in medians.items():
        plain = medians[PLAIN + "".join(name.partition(", N = ")[1:])]
        beyond, times = round(median - plain, 3), round(median / plain, 2)
        found[name] = {"ms": round(median, 3), "beyond plain": beyond, "times plain": times}
    return found


def run() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_280_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.samples, options.rounds, options.steps)
    command = f"OMP_NUM_THREADS=1 python -m benchmarks.host_time --rounds {options.rounds} --steps {options.steps}"
    write_record(RESULTS / "host-time.json", {"command": command, "machine": describe_machine(), "step": found})
    for name, row in found.items():
        target = f" (target {TARGETS[name]})" if name in TARGETS else ""
        print(f"{name:<34}{row['ms']:>8.3f} ms {row['beyond plain']:+.3f}{target} {row['times plain']:.2f} x")


if __name__ == "__main__":
    run()
