"""What a step costs whose criterion is ``F.cross_entropy`` instead of a module: each of its function calls is seen.

Run from a clone: ``OMP_NUM_THREADS=1 python -m benchmarks.functional_criterion``. Forward and backward of an MLP on
embeddings (batch 128) and of a CIFAR ResNet-18 (two images of 8 x 8: calls count, not their work), with the mode and
without it by turns in one process; processor time, medians. What it does not show: data loading, an accelerator, where
the host runs ahead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.record import RESULTS, describe_machine, write_record
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import MLP, Classifier, ResNet18
from lightning_noisy.targets.functional_criterion import FUNCTIONS, FunctionalCriterion


def unchanged(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A criterion that nobody changes."""
    return args, kwargs


def networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Networks, and a batch of each."""
    return {
        "MLP 192-512, batch 128": (Classifier(MLP(192, (512,)), LinearHead, 10), torch.randn(128, 192)),
        "ResNet-18, two images of 8 x 8": (Classifier(ResNet18(), LinearHead, 10), torch.randn(2, 3, 8, 8)),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Milliseconds of a step with the mode and without it, by network."""
    mode = FunctionalCriterion(tuple(FUNCTIONS)).mode(unchanged)
    around: dict[str, Callable[[], AbstractContextManager[Any]]] = {"without": nullcontext, "with": lambda: mode}
    found = {}
    for name, (network, images) in networks().items():
        target = torch.arange(len(images)) % 10
        times: dict[str, list[float]] = {kind: [] for kind in around}
        for _ in range(rounds):
            for kind, entered in around.items():
                began = time.process_time()
                with entered():
                    loss = F.cross_entropy(network(images), target)
                loss.backward()
                times[kind].append(1e3 * (time.process_time() - began))
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        medians["adds"] = statistics.median(b - a for a, b in zip(times["without"], times["with"], strict=True))
        found[name] = {kind: round(median, 4) for kind, median in medians.items()}
        print(f"{name:<26}{medians['without']:>9.3f} ms, with the mode {medians['adds']:+.3f} ms")
    return found


def run() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    command = f"OMP_NUM_THREADS=1 python -m benchmarks.functional_criterion --rounds {rounds}"
    record = {"command": command, "machine": describe_machine(), "ms of a step": measure(rounds)}
    write_record(RESULTS / "functional_criterion.json", record)


if __name__ == "__main__":
    run()
