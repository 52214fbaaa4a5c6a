"""What per-sample rows cost in a step, and in memory, by the number of samples.

    OMP_NUM_THREADS=1 python -m benchmarks.scale

In each step the rows of a batch move towards predictions, as SELC and ELR move them, with samples that are drawn anew.
The unit is what makes these predictions: the softmax of a linear layer of 512 features, without a gradient. Numbers of
samples take turns in each round, and times are medians; a cost that does not depend on the number of samples has the
same time in each row. Rows of one kind are in memory at a time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import wait
from benchmarks.record import RESULTS, describe_machine, write_record, write_table
from lightning_noisy import SampleStore, Storage

SAMPLES = (10_000, 100_000, 1_280_000)
FEATURES, BATCH, WEIGHT = 512, 256, 0.1
CPU = torch.device("cpu")


def storages(top_k: int) -> dict[str, Storage]:
    """The ways to keep rows, by name."""
    return {
        "float32": Storage(),
        "float16": Storage("float16"),
        f"float16, {top_k} largest": Storage("float16", top_k=top_k),
    }


class Steps:
    """Fresh predictions for fresh samples, and what they cost on a device."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._device = device
        self._weight = torch.randn(num_classes, FEATURES, device=device) / FEATURES**0.5

    def predictions(self) -> Tensor:
        """Those of a batch, (B, K)."""
        return (4 * torch.randn(BATCH, FEATURES, device=self._device) @ self._weight.T).softmax(dim=1)

    def unit(self) -> float:
        """Seconds that predictions take."""
        features = torch.randn(BATCH, FEATURES, device=self._device)
        return self._seconds(lambda: (features @ self._weight.T).softmax(dim=1))

    def step(self, store: SampleStore) -> float:
        """Seconds that a step takes for the rows of its samples."""
        index = torch.randint(store.num_samples, (BATCH,), device=self._device)
        predictions = self.predictions()
        return self._seconds(lambda: store.lerp(index, predictions, WEIGHT))

    def _seconds(self, run: Callable[[], Tensor]) -> float:
        def whole() -> Tensor:
            result = run()
            wait(self._device)
            return result

        wait(self._device)
        return _seconds(whole)


def measure(
    samples: Sequence[int], num_classes: int, top_k: int, rounds: int, device: torch.device = CPU
) -> dict[str, Any]:
    """Cost of a step and bytes of the rows, by kind and number of samples."""
    torch.manual_seed(0)
    steps, rows = Steps(num_classes, device), []
    for name, storage in storages(top_k).items():
        stores = [SampleStore(count, (num_classes,), storage=storage, device=device) for count in samples]
        units, taken = [], {store.num_samples: [] for store in stores}
        for _ in range(rounds):
            units.append(steps.unit())
            for store in stores:
                taken[store.num_samples].append(steps.step(store))
        unit = statistics.median(units)
        for store in stores:
            seconds = statistics.median(taken[store.num_samples])
            rows.append(
                {
                    "rows": name,
                    "samples": store.num_samples,
                    "microseconds": round(1e6 * seconds, 1),
                    "units": round(seconds / unit, 3),
                    "bytes": store.nbytes,
                }
            )
    return {"classes": num_classes, "batch": BATCH, "rounds": rounds, "rows": rows}


def table(record: dict[str, Any]) -> str:
    """Costs and memory, as Markdown."""
    lines = ["| rows | samples | a step, µs | of the predictions | MiB |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['rows']} | {row['samples']:,} | {row['microseconds']:.0f} | {row['units']:.2f} | "
        f"{row['bytes'] / 2**20:,.0f} |"
        for row in record["rows"]
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it beside the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--results", type=Path, default=RESULTS / "scale.json")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    record = {"machine": describe_machine(), **measure(given.samples, given.classes, given.top_k, given.rounds)}
    rows = table(record)
    print(rows)
    write_record(given.results, record)
    write_table(given.results, rows)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
