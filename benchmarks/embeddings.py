"""Robust heads on cached features under human label noise: clean test accuracy at the last epoch.

    python -m benchmarks.embeddings --features cifar10_embeddings.npz --labels cifar10n.npz --jobs 2

Features of CIFAR-10 (N, D) from a network that was trained on ImageNet, the last 10,000 rows being the test set; labels
given by people (CIFAR-10N). The features enter as they are: of principal components the scale tells what matters. A
hidden layer of width 256 with ReLU and a head are trained for 15 epochs by SGD without weight decay, batch size 512,
learning rate 0.1 falling as a cosine to 0, momentum 0.9, gradients clipped at norm 5: cross entropy and the active
negative loss; linear head and KAN head (which normalizes what it gets, as that goes beyond its splines), alone and with
30, 50 and 70 % of the edges of each feature masked in every step.

Runs that the record holds are not done again, so a benchmark that was interrupted goes on where it stopped.

It shows what loss and mask do on top of good features under one kind of real noise. It does not show training from
images, nor other noise; nothing was tuned per method, and no validation set chose anything. The best epoch is chosen
by the test set, for comparison with papers that do so.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.grid import Run, fill, fit, spread
from benchmarks.record import RESULTS, commit, write_table
from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.data import FeaturesDataModule, FileNoise
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.losses import ActiveNegativeLoss
from lightning_noisy.networks import MLP

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "ce": nn.CrossEntropyLoss,
    "anl": partial(ActiveNegativeLoss, alpha=5.0, beta=5.0, delta=5e-5),
}
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": LinearHead,
    "kan": partial(KANHead, normalize=True),
}
RATIOS = (None, 0.3, 0.5, 0.7)
"""Shares of the edges that are masked; None masks none."""
NAMES = {"linear": "linear", "kan": "KAN", "linear masked": "DFC", "kan masked": "DKAN"}


@dataclass(frozen=True)
class Settings:
    """What all runs of a record share."""

    labels_key: str = "worse"
    test_rows: int = 10_000
    epochs: int = 15
    batch_size: int = 512
    hidden: int = 256
    learning_rate: float = 0.1
    clip: float = 5.0


def run(features: str, labels: str, settings: Settings, loss: str, head: str, ratio: float | None, seed: int) -> Run:
    """One fit: clean test accuracy by epoch."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    data = FeaturesDataModule(
        features,
        FileNoise(labels, settings.labels_key),
        batch_size=settings.batch_size,
        seed=seed,
        test_rows=settings.test_rows,
        standardize=None,
    )
    data.setup("fit")
    module = NoisyLabelModule(
        MLP(data.training_images().image(0).numel(), (settings.hidden,)),
        HEADS[head],
        LOSSES[loss](),
        data.num_classes,
        optimizer=partial(torch.optim.SGD, lr=settings.learning_rate, momentum=0.9),
        lr_scheduler=partial(CosineAnnealingLR, T_max=settings.epochs),
    )
    masks = [] if ratio is None else [MaskRefresh(ratio=ratio)]
    fitted = fit(module, data, settings.epochs, settings.clip, masks)
    return {
        "loss": loss,
        "head": head,
        "ratio": ratio,
        "seed": seed,
        **fitted.record(),
        "seconds": round(time.perf_counter() - began, 1),
        "commit": commit(),
    }


def planned(losses: Iterable[str], heads: Iterable[str], seeds: Iterable[int]) -> dict[str, Run]:
    """All runs by their names; seeds vary slowest, so that a record grows evenly."""
    runs = itertools.product(seeds, losses, heads, RATIOS)
    return {
        f"{loss} {head} {ratio} {seed}": {"loss": loss, "head": head, "ratio": ratio, "seed": seed}
        for seed, loss, head, ratio in runs
    }


def table(record: dict[str, Any]) -> str:
    """Means and standard deviations over the seeds, as Markdown."""
    groups: dict[tuple[str, str, float | None], list[list[float]]] = {}
    for seen in record["runs"].values():
        groups.setdefault((seen["loss"], seen["head"], seen["ratio"]), []).append(seen["accuracy"])
    lines = ["| loss | head | masked | last epoch | best epoch | seeds |", "|---|---|---|---|---|---|"]
    for (loss, head, ratio), curves in groups.items():
        name = NAMES[head if ratio is None else f"{head} masked"]
        last, best = spread([curve[-1] for curve in curves]), spread([max(curve) for curve in curves])
        lines.append(f"| {loss} | {name} | {'none' if ratio is None else ratio} | {last} | {best} | {len(curves)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs, print the table and write it beside the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="npz: x (N, D), y (N,) clean, test set last")
    parser.add_argument("--labels", type=Path, required=True, help="npz with the labels of the training rows")
    parser.add_argument("--labels-key", default=Settings.labels_key)
    parser.add_argument("--test-rows", type=int, default=Settings.test_rows)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--hidden", type=int, default=Settings.hidden)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS / "embeddings.json")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(given.labels_key, given.test_rows, given.epochs, given.batch_size, given.hidden)
    runs = planned(given.losses, given.heads, given.seeds)
    one_run = partial(run, str(given.features), str(given.labels), settings)
    rows = table(fill(given.results, settings, runs, one_run, given.jobs))
    print(rows)
    write_table(given.results, rows)


if __name__ == "__main__":
    main()
