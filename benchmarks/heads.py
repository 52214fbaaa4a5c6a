"""Heads in training: time and memory of forward and backward, and what all callbacks add to a training step.

    OMP_NUM_THREADS=1 python -m benchmarks.heads --results benchmarks/results/heads.json

One thread, one process. Variants take turns in every round, in random order, each with ten steps in a row, as in
training, and for each step weights and features drawn anew outside the measured time. Figures are medians over the
rounds, of the processor's time, so that other programs count little. Masks are those of the callback itself, whose
hooks run in the measured time.

linear     LinearHead under MaskRefresh, in units of nn.Linear
kan        KANHead with and without MaskRefresh, in units of a KAN layer in plain PyTorch
compiled   the same under ``compile: true``; the unit is not compiled
memory     the largest tensor and the peak of all tensors alive; nothing may have as many elements as batch x edges
callbacks  the time inside the callbacks of a CIFAR ResNet-18's training step, in units of the rest of the step

It does not show accelerators, more threads, half precision, other batch sizes or features of other layers; nor data
loading, nor the callbacks' work before and after an epoch's steps (whose time is recorded beside). What a mask costs
inside the head, one product in forward and backward, is in ``linear`` and ``kan`` and not in ``callbacks``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerState
from torch import nn

from benchmarks.memory import measure_memory
from benchmarks.record import RESULTS, describe_machine, read_record, write_record
from benchmarks.textbook_kan import NaiveDKAN, TextbookKAN
from benchmarks.training_step import measure_callbacks
from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.heads.maskable import MaskableHead
from lightning_noisy.modules.compiled import compiled_head

RATIO = 0.5
NAIVE_UP_TO = 100
"""Most classes for which the activations (B, K, D) of the naive variant are made."""
NEVER_AGAIN = 10**9
IN_A_ROW = 10
WARM_UP = 3

TARGETS = {
    "linear": {"std, every step": {10: 1.6, 100: 1.35, 1000: 1.3}},
    "kan": {
        "KANHead": {10: 0.20, 100: 0.38, 1000: 0.78},
        "std, every step": {10: 0.30, 100: 0.53, 1000: 1.2},
    },
    "compiled": {
        "KANHead": {10: 0.15, 100: 0.32, 1000: 0.75},
        "std, every step": {10: 0.20, 100: 0.42, 1000: 0.95},
    },
}
"""Largest ratio wanted: section -> variant -> classes -> ratio, at batch 128 and 512 features."""


class Step:
    """Forward and backward of one head, and the hooks of its mask.

    Args:
        head: Maps features (B, D) to logits (B, K).
        shape: B, D and K.
        **mask: Arguments of ``MaskRefresh``; without any there is no mask.
    """

    def __init__(self, head: nn.Module, shape: tuple[int, int, int], **mask: Any) -> None:
        self.head = head
        self.batch, self.inputs, self.classes = shape
        self.refresh = MaskRefresh(ratio=RATIO, **mask) if mask else None
        self.model: Any = nn.ModuleDict({"head": head})
        self.trainer: Any = SimpleNamespace(
            strategy=SingleDeviceStrategy(),
            state=TrainerState(),
            callbacks=[],
            global_step=0,
            current_epoch=0,
            is_last_batch=False,
        )
        if self.refresh is not None:
            self.refresh.on_fit_start(self.trainer, self.model)
            self.refresh.on_train_start(self.trainer, self.model)

    def prepare(self) -> None:
        """Draw weights, features and the gradient of the logits; outside the measured time."""
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.normal_(std=0.1)
                parameter.grad = None
        self.features = torch.randn(self.batch, self.inputs, requires_grad=True)
        self.gradient = torch.randn(self.batch, self.classes)

    def run(self) -> None:
        """One step, without the optimizer."""
        if self.refresh is not None:
            self.refresh.on_train_batch_start(self.trainer, self.model, None, 0)
        self.head(self.features).backward(self.gradient)
        self.trainer.global_step += 1
        if self.refresh is not None:
            self.refresh.on_train_batch_end(self.trainer, self.model, None, None, 0)


def linear_steps(shape: tuple[int, int, int]) -> dict[str, Step]:
    """nn.Linear, the unit, and LinearHead under masks."""
    _, inputs, classes = shape
    masks: dict[str, dict[str, Any]] = {
        "no mask": {},
        "kept mask": {"every_n_steps": NEVER_AGAIN},
        "std, every step": {"score": "std"},
        "std over the whole head": {"score": "std", "granularity": "edge"},
        "obd": {"score": "obd"},
        "gradient": {"score": "gradient"},
    }
    masked = {name: Step(LinearHead(inputs, classes), shape, **mask) for name, mask in masks.items()}
    return {"nn.Linear": Step(nn.Linear(inputs, classes), shape), **masked}


def kan_steps(shape: tuple[int, int, int]) -> dict[str, Step]:
    """The textbook's layer, the unit, and KANHead without and with a mask."""
    _, inputs, classes = shape
    steps = {
        "textbook": Step(TextbookKAN(inputs, classes), shape),
        "KANHead": Step(KANHead(inputs, classes), shape),
        "kept mask": Step(KANHead(inputs, classes), shape, every_n_steps=NEVER_AGAIN),
        "std, every step": Step(KANHead(inputs, classes), shape, score="std"),
    }
    if classes <= NAIVE_UP_TO:
        steps["textbook, std of all activations"] = Step(NaiveDKAN(inputs, classes, RATIO), shape)
    return steps


def compiled_steps(shape: tuple[int, int, int], **options: Any) -> dict[str, Step]:
    """The textbook's layer, the unit, and KANHead compiled; ``options`` are those of ``torch.compile``."""
    _, inputs, classes = shape
    steps = {
        "KANHead": Step(KANHead(inputs, classes), shape),
        "std, every step": Step(KANHead(inputs, classes), shape, score="std"),
    }
    for step in steps.values():
        for method in compiled_head(cast(MaskableHead, step.head), "head", options):
            method.begin()
    return {"textbook": Step(TextbookKAN(inputs, classes), shape), **steps}


SECTIONS = {"linear": linear_steps, "kan": kan_steps}
_ALL = ("linear", "kan", "compiled", "memory", "callbacks")
TIMED: dict[str, Callable[[tuple[int, int, int]], dict[str, Step]]] = {**SECTIONS, "compiled": compiled_steps}


def time_rounds(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step in each round, the mean of a few in a row."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UP + rounds):
        for name in random.sample(list(steps), len(steps)):
            seconds = 0.0
            for _ in range(IN_A_ROW):
                steps[name].prepare()
                began = time.process_time()
                steps[name].run()
                seconds += time.process_time() - began
            if number >= WARM_UP:
                taken[name].append(1e3 * seconds / IN_A_ROW)
    return taken


def measure_times(section: str, batch: int, inputs: int, classes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Times of a section: classes -> variant -> milliseconds, ratio to the first variant, largest ratio wanted."""
    table = {}
    for count in classes:
        taken = time_rounds(TIMED[section]((batch, inputs, count)), rounds)
        medians = {name: statistics.median(values) for name, values in taken.items()}
        unit = next(iter(medians.values()))
        table[str(count)] = {
            name: {
                "ms": round(value, 4),
                "quartiles_ms": [round(q, 4) for q in _quartiles(taken[name])],
                "ratio": round(value / unit, 3),
                "target": TARGETS[section].get(name, {}).get(count),
            }
            for name, value in medians.items()
        }
        print(f"\n{section}, batch {batch}, {inputs} -> {count}")
        for name, row in table[str(count)].items():
            print(f"  {name:<34}{row['ms']:>10.3f} ms{row['ratio']:>8.2f}{_verdict(row['ratio'], row['target'])}")
    return {"batch": batch, "features": inputs, "rounds": rounds, "variants": table}


def measure_memories(batch: int, inputs: int, classes: Sequence[int]) -> dict[str, Any]:
    """Memory of a whole step of every variant: classes -> section -> variant -> what was seen."""
    table: dict[str, Any] = {}
    for count in classes:
        table[str(count)] = {}
        for section, make_steps in SECTIONS.items():
            seen = {}
            for name, step in make_steps((batch, inputs, count)).items():
                step.prepare()
                step.run()  # a mask that is kept is made here
                step.prepare()
                seen[name] = measure_memory(step.run, batch * inputs * count)
            table[str(count)][section] = seen
            print(f"\nmemory, {section}, batch {batch}, {inputs} -> {count}: batch x edges {batch * inputs * count}")
            for name, row in seen.items():
                largest = f"{row['largest_elements']:>12} {row['largest_shape']}"
                print(f"  {name:<34}peak {row['peak_mib']:>8.2f} MiB, largest {largest}")
    return {"batch": batch, "features": inputs, "variants": table}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sections asked for, and put them into the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="at least 20 for a record")
    parser.add_argument("--results", type=Path, default=RESULTS / "heads.json")
    parser.add_argument("--only", nargs="+", choices=_ALL, help="sections")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = given.batch, given.features, given.classes
    for section in given.only or _ALL:
        if section == "callbacks":
            measured = measure_callbacks(given.batch, given.rounds)
        elif section == "memory":
            measured = measure_memories(*shapes)
        else:
            measured = measure_times(section, *shapes, given.rounds)
        record = {**read_record(given.results), section: {"machine": describe_machine(), **measured}}
        write_record(given.results, record)


def _quartiles(values: Sequence[float]) -> list[float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * list(values)
    return [low, high]


def _verdict(ratio: float, target: float | None) -> str:
    return "" if target is None else f"  wanted {target:.2f}: {'reached' if ratio <= target else 'MISSED'}"


if __name__ == "__main__":
    main()
