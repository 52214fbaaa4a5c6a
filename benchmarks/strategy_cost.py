"""What an epoch of each strategy costs, relative to cross entropy, for the 8-layer CNN.

    OMP_NUM_THREADS=1 python -m benchmarks.strategy_cost

Random images of 32 x 32 pixels with random labels of ten classes, batch size 8, on one thread. In each round every
strategy is trained anew for three epochs, the first of them its warm-up, and the processor time of the other two is
taken: whole epochs, with the passes over the training set that choose samples. Ratios are of medians over the rounds.

Counted is what the algorithm does in the papers' code, in forward and backward passes of one batch, a forward pass
being a third of both. How much DivideMix and its kin do depends on how many samples they take for clean, which is
measured, and beside it their count for this share. With few batches an epoch the rounding of these parts to whole
batches counts, so measure them with ``--batches 20 --only DivideMix GSS-SSL UNICON``; rows that are there already
stay. The time for making views is left out: all views are the same image.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from typing_extensions import override

from benchmarks.clock import accelerator, now
from benchmarks.grid import fit
from benchmarks.random_samples import RandomSamples, random_samples
from benchmarks.record import RESULTS, describe_machine, read_record, write_record, write_table
from benchmarks.strategies import selected
from benchmarks.strategy_list import STRATEGIES, Recipe, Scale, Strategy
from lightning_noisy.data import LabeledImages
from lightning_noisy.data.batch_transforms import BatchTransform, Unchanged
from lightning_noisy.data.views import View, named_views
from lightning_noisy.networks import CNN8

EPOCHS, WARM_UP = 3, 1
CPU = torch.device("cpu")
COUNTED: dict[str, Callable[[float], float]] = {
    "CE": lambda size: 1.0,
    "Decoupling": lambda size: 2.0,
    "Co-teaching": lambda size: 2.0,
    "Co-teaching+": lambda size: 2.0,
    "JoCoR": lambda size: 2.0,
    "DISC": lambda size: 4.0,
    "SED": lambda size: 8 / 3,
    "Jo-SRC": lambda size: 8 / 3,
    "Co-LDL": lambda size: 2 * (2 - size),
    "SPRL": lambda size: 4 / 3,
    "SURE": lambda size: 4.0,
    "ELR+": lambda size: 8 / 3,
    "GSS-DB": lambda size: 2.0,
    "DivideMix": lambda size: 12 * size + 0.7,
    "GSS-SSL": lambda size: 12 * size + 0.7,
    "UNICON": lambda size: (16 * (1 + size) + 4) / 3,
}
"""Cost of an epoch by counting passes, given the share of the samples that is selected."""


class RandomImages(RandomSamples):
    """Images of noise in some views, and one for the test."""

    def __init__(self, count: int, views: Sequence[View], **options: Any) -> None:
        super().__init__((3, 32, 32), count, **options)
        self.views = tuple(views)

    @override
    def test_images(self) -> LabeledImages:
        return LabeledImages.in_memory(*random_samples(self.shape, 1, self.num_classes))

    @override
    def training_transform(self) -> BatchTransform:
        return named_views(self.views, Unchanged(), Unchanged())


class EpochTimes(Callback):
    """The time of each training epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []

    @override
    def on_train_epoch_start(self, *_: Any) -> None:
        self._began = now(self.device)

    @override
    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(now(self.device) - self._began)


def one_round(
    strategy: Strategy, batches: int, batch_size: int, device: torch.device = CPU
) -> tuple[float, float | None]:
    """Mean time of the epochs after the warm-up, and the share that is selected in the last of them."""
    seed_everything(0, verbose=False)
    data = RandomImages(batches * batch_size, strategy.views or ("weak",), batch_size=batch_size)
    times = EpochTimes(device)
    scale = Scale(EPOCHS, batches, batch_size, noise_rate=0.4)
    module = strategy.make(Recipe(CNN8, data.num_classes, learning_rate=0.01), scale)
    fitted = fit(module, data, EPOCHS, 5.0, [times, *strategy.callbacks(scale)], accelerator(device))
    return statistics.mean(times.seconds[WARM_UP:]), selected(fitted, "size")


def measure(
    names: Sequence[str], rounds: int, batches: int, batch_size: int, device: torch.device = CPU
) -> dict[str, Any]:
    """Cost of each strategy, measured by turns and counted: a row each, with the cross entropy beside it."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    sizes: dict[str, float | None] = {}
    for _ in range(rounds):
        for name in names:
            seconds, sizes[name] = one_round(STRATEGIES[name], batches, batch_size, device)
            taken[name].append(seconds)
    unit = statistics.median(taken["CE"])
    rows = {}
    for name, seconds in taken.items():
        size = sizes[name]
        measured, counted = statistics.median(seconds) / unit, COUNTED[name](1.0 if size is None else size)
        rows[name] = {
            "seconds": [round(one, 3) for one in seconds],
            "cross_entropy_seconds": round(unit, 3),
            "batches": batches,
            "batch_size": batch_size,
            "measured": round(measured, 3),
            "counted": round(counted, 3),
            "above": round(measured / counted - 1, 3),
            "selected": size,
        }
    return rows


def table(record: dict[str, Any]) -> str:
    """Measured and counted costs, as Markdown."""
    lines = ["| strategy | measured | counted | above the count |", "|---|---|---|---|"]
    for name, row in record["rows"].items():
        lines.append(f"| {name} | {row['measured']:.2f} | {row['counted']:.2f} | {100 * row['above']:+.0f} % |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it beside the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="of an epoch of cross entropy")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=COUNTED, default=list(COUNTED), metavar="STRATEGY")
    parser.add_argument("--results", type=Path, default=RESULTS / "strategy-cost.json")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = ["CE", *(name for name in given.only if name != "CE")]
    measured = measure(names, given.rounds, given.batches, given.batch_size)
    record = {"machine": describe_machine(), "rows": {**read_record(given.results).get("rows", {}), **measured}}
    rows = table(record)
    print(rows)
    write_record(given.results, record)
    write_table(given.results, rows)


if __name__ == "__main__":
    main()
