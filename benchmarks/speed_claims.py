"""What ``benchmarks.speed`` measures: the other benchmarks as claims, each a flat table of figures."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import full_step, functional_criterion, heads, host_time, image_epochs, loader, scale, strategy_cost
from benchmarks.clock import now
from benchmarks.full_step import Way
from benchmarks.training_step import measure_callbacks

Figures = dict[str, float]


def head_times(way: Way, features: int, classes: Sequence[int], rounds: int, sections: Sequence[str]) -> Figures:
    """Forward and backward of heads, in units of the first of their section."""
    figures = {}
    for section in sections:
        for count in classes:
            steps = heads.TIMED[section]((full_step.BATCH, features, count))
            for step in steps.values():
                step.model.to(way.device)
            medians = _step_times(steps, way.device, rounds)
            unit = next(iter(medians.values()))
            figures.update({f"{section}, {count} classes, {name}": ms / unit for name, ms in medians.items()})
    return figures


def _step_times(steps: dict[str, heads.Step], device: torch.device, rounds: int) -> Figures:
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(heads.WARM_UP + rounds):
        for name in random.sample(list(steps), len(steps)):
            seconds = 0.0
            for _ in range(heads.IN_A_ROW):
                with torch.device(device):  # where what it draws is made
                    steps[name].prepare()
                began = now(device)
                steps[name].run()
                seconds += now(device) - began
            taken[name].append(seconds)
    return {name: statistics.median(values[heads.WARM_UP :]) for name, values in taken.items()}


def head_memory(way: Way, features: int, classes: Sequence[int]) -> Figures:
    """Peak of the tensors that a step of a head makes, and the elements of the largest, in units of batch x edges."""
    figures = {}
    for count, sections in heads.measure_memories(full_step.BATCH, features, classes)["variants"].items():
        for section, variants in sections.items():
            for name, row in variants.items():
                head, edges = f"{section}, {count} classes, {name}", features * int(count)
                figures[f"{head}: peak MiB"] = row["peak_mib"]
                figures[f"{head}: largest tensor"] = row["largest_elements"] / (full_step.BATCH * edges)
    return figures


def host_times(way: Way, samples: Sequence[int], rounds: int, steps: int) -> Figures:
    """What Python does in a step, beside plain Lightning."""
    rows = host_time.measure(samples, rounds, steps, way.device)
    figures = {f"{name}: ms": row["ms"] for name, row in rows.items()}
    figures |= {f"{name}: ms beyond plain": row["beyond plain"] for name, row in rows.items()}
    figures |= {f"{name} / plain": row["times plain"] for name, row in rows.items()}
    largest = rows[list(rows)[-1]]["beyond plain"]
    return {**figures, "ms beyond plain: most samples / fewest": largest / rows[host_time.FULL]["beyond plain"]}


def callbacks(way: Way, batch_size: int, rounds: int) -> Figures:
    """The time inside the callbacks in a step of ResNet-18, in units of the rest."""
    return {"all callbacks: share of a step": measure_callbacks(batch_size, rounds)["share"]}


def loaders(way: Way, images: int, batches: int, rounds: int) -> Figures:
    """Training images a second, made where the batch is wanted."""
    views = {"a weak view": ("weak",), "a weak and a strong view": ("weak", "strong")}
    figures = {}
    for name, wanted in views.items():
        place = "device" if way.light else "loader"
        data = image_epochs.RandomCIFAR10(
            images, views=wanted, num_workers=0, batch_size=loader.BATCH, seed=0, data_on=place
        )
        data.setup("fit")
        seconds = [
            loader.seconds_per_image(data.train_dataloader(), batches, way.device) for _ in range(max(2, rounds))
        ]
        figures[f"{name}: images/s"] = 1 / statistics.median(seconds[1:])
    return figures


def store_rows(way: Way, samples: Sequence[int], classes: int, top_k: int, rounds: int) -> Figures:
    """What per-sample rows cost in a step: in units of their predictions, and with most samples to fewest."""
    rows = scale.measure(samples, classes, top_k, rounds, way.device)["rows"]
    times = {(row["rows"], row["samples"]): row["microseconds"] for row in rows}
    figures = {f"{row['rows']}, N = {row['samples']:,}, of the predictions": row["units"] for row in rows}
    kinds = dict.fromkeys(row["rows"] for row in rows)
    return figures | {
        f"{kind}: most samples / fewest": times[kind, samples[-1]] / times[kind, samples[0]] for kind in kinds
    }


def criteria(way: Way, rounds: int) -> Figures:
    """What it costs that a criterion is a function."""
    measured = functional_criterion.measure(rounds)
    return {f"{name}: ms added": row["adds"] for name, row in measured.items()}


def strategies(way: Way, names: Sequence[str], rounds: int, batches: int, batch_size: int) -> Figures:
    """An epoch of each strategy, in units of cross entropy, and by how much that is above the count of its passes."""
    rows = strategy_cost.measure(names, rounds, batches, batch_size, way.device)
    figures = {f"{name} / CE": row["measured"] for name, row in rows.items()}
    return figures | {f"{name}: above the count": row["above"] for name, row in rows.items() if name != "CE"}


@dataclass(frozen=True)
class Claim:
    """A table of figures that a process of its own measures."""

    measure: Callable[..., Figures]
    full: dict[str, Any]
    toy: dict[str, Any]
    on_gpu: dict[str, Any] = field(default_factory=dict)
    """What is larger there."""
    devices: tuple[str, ...] = ("cpu", "cuda")

    def run(self, device: str, toy: bool) -> Figures:
        """Measure; a toy goes through what a GPU would, as far as the device can."""
        way = Way(torch.device(device), light=toy or device == "cuda")
        size = self.toy if toy else {**self.full, **(self.on_gpu if device == "cuda" else {})}
        return self.measure(way, **size)


SMALL = ("--model.backbone=SmallCNN", "--model.backbone.in_channels=3", "--model.backbone.width=4")
BOTH = ("ResNet-18", "CNN8")
CLAIMS: dict[str, Claim] = {
    "heads": Claim(
        head_times,
        {"features": 512, "classes": (10, 100, 1000), "rounds": 50, "sections": tuple(heads.SECTIONS)},
        {"features": 16, "classes": (6,), "rounds": 1, "sections": tuple(heads.SECTIONS)},
    ),
    "compiled heads": Claim(
        head_times,
        {"features": 512, "classes": (10, 100, 1000), "rounds": 50, "sections": ("compiled",)},
        {"features": 16, "classes": (6,), "rounds": 1, "sections": ("compiled",)},
    ),
    "head memory": Claim(
        head_memory,
        {"features": 512, "classes": (10, 100, 1000)},
        {"features": 16, "classes": (6,)},
        devices=("cpu",),
    ),
    "host time": Claim(
        host_times,
        {"samples": (10_000, 100_000, 1_280_000), "rounds": 5, "steps": 300},
        {"samples": (256, 512), "rounds": 1, "steps": host_time.SKIPPED + 4},
    ),
    "MLP step": Claim(
        full_step.measure,
        {"networks": ("MLP",), "count": 10_240, "steps": 300, "skipped": 20, "rounds": 3},
        {"networks": ("MLP",), "count": 256, "steps": 4, "skipped": 1, "rounds": 1},
        {"steps": 400, "skipped": 50},
    ),
    "CNN step": Claim(
        full_step.measure,
        {"networks": ("CNN8",), "count": 1280, "steps": 6, "skipped": 2, "rounds": 3},
        {"networks": ("MLP",), "count": 256, "steps": 4, "skipped": 1, "rounds": 1},
        {"count": 10_240, "steps": 400, "skipped": 50},
    ),
    "epoch": Claim(
        image_epochs.epochs,
        {"backbones": BOTH, "batches": 4, "length": 3, "skipped": 1},
        {"backbones": ("small CNN",), "batches": 2, "length": 2, "skipped": 1, "batch_size": 4},
        {"batches": 391, "length": 4, "skipped": 50},
    ),
    "overhead": Claim(
        image_epochs.overhead,
        {"backbones": BOTH, "batches": 6, "skipped": 1, "rounds": 5},
        {"backbones": ("small CNN",), "batches": 3, "skipped": 1, "rounds": 1, "batch_size": 4},
        {"batches": 391, "skipped": 50},
    ),
    "cell": Claim(
        image_epochs.cell,
        {"recipe": "dcm/cifar10/anl-dfc", "images": 1280, "length": 2},
        {
            "recipe": "dcm/cifar10/anl-dfc",
            "images": 40,
            "length": 2,
            "more": (*SMALL, "--data.batch_size=20"),
        },
        {"images": image_epochs.IMAGES, "length": 4},
    ),
    "callbacks": Claim(callbacks, {"batch_size": 128, "rounds": 20}, {"batch_size": 2, "rounds": 1}, devices=("cpu",)),
    "loader": Claim(
        loaders,
        {"images": 20_000, "batches": 60, "rounds": 6},
        {"images": 300, "batches": 1, "rounds": 2},
        {"images": image_epochs.IMAGES, "batches": 300},
    ),
    "rows": Claim(
        store_rows,
        {"samples": scale.SAMPLES, "classes": 1000, "top_k": 64, "rounds": 101},
        {"samples": (40, 300), "classes": 9, "top_k": 4, "rounds": 1},
    ),
    "functional criterion": Claim(criteria, {"rounds": 300}, {"rounds": 1}, devices=("cpu",)),
    "strategies": Claim(
        strategies,
        {"names": list(strategy_cost.COUNTED), "rounds": 5, "batches": 8, "batch_size": 8},
        {"names": ["CE", "Co-teaching"], "rounds": 1, "batches": 1, "batch_size": 2},
        {"batches": 40, "batch_size": 128, "rounds": 3},
    ),
}
