"""Every strategy against cross entropy, on digits and on cached features, under three kinds of label noise each.

    python -m benchmarks.strategies --jobs 2
    python -m benchmarks.strategies --features cifar10_embeddings.npz --labels cifar10n.npz --jobs 2

Digits of scikit-learn: 40 % and 60 % symmetric noise and 40 % pair flips; a small CNN, 20 epochs, batch size 64.
Features: as in ``benchmarks.methods``, where 60 losses and target methods stand under the same noise. SGD with momentum
0.9, learning rate 0.1 falling as a cosine to 0, no weight decay, gradients clipped at norm 5; SURE has its own.

A strategy that asks for several views gets them: of digits, weak ones shifted by up to a pixel and strong ones with a
square cut out besides; of features, weak ones with normal noise of standard deviation 0.3 (their own is 1 on average)
and strong ones with a fifth of them set to zero besides. One that does not gets samples as they are. Cross entropy
stands there with all three.

Arguments are published ones (``strategy_list.py``). Those that count epochs are in proportion to the length of
training, thresholds that follow once an epoch get as far in all, and averages of weights reach back as many epochs.
They are the same under all kinds of noise, and nothing was tuned. Strategies that ask for the noise rate are told 0.4;
rows named "true rate" know it.

Runs that the record holds are not done again, so a benchmark that was interrupted goes on where it stopped.

It shows what each strategy does on a small network with arguments that were chosen for large ones. It does not show
which is best once tuned, nor on images of that size. The best epoch is chosen by the test set.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch import seed_everything
from torch import nn
from typing_extensions import override

from benchmarks.compact import read_compact, write_compact
from benchmarks.grid import Fitted, Run, fill, fit
from benchmarks.label_noises import label_noise
from benchmarks.record import RESULTS, commit, write_picture, write_table
from benchmarks.strategy_list import STRATEGIES, Recipe, Scale
from benchmarks.strategy_tables import figure, tables
from lightning_noisy.data import DigitsDataModule, FeaturesDataModule, NoisyDataModule
from lightning_noisy.data.views import View
from lightning_noisy.networks import MLP, SmallCNN


@dataclass(frozen=True)
class Settings:
    """What all runs of a record share."""

    test_rows: int
    epochs: int
    batch_size: int
    width: int
    learning_rate: float = 0.1
    clip: float = 5.0


class Ground(ABC):
    """What strategies are compared on."""

    noises: ClassVar[tuple[str, ...]]
    settings: Settings

    @abstractmethod
    def data(self, noise: str, seed: int, views: Sequence[View]) -> NoisyDataModule:
        """The data under one of the noises, in these views, without any as they are."""

    @abstractmethod
    def backbone(self) -> nn.Module:
        """A new network without a head."""


@dataclass(frozen=True)
class Digits(Ground):
    """Scans of digits and a small CNN."""

    noises: ClassVar[tuple[str, ...]] = ("symmetric 0.4", "symmetric 0.6", "pair flips 0.4")
    settings: Settings = Settings(test_rows=360, epochs=20, batch_size=64, width=16)

    @override
    def data(self, noise: str, seed: int, views: Sequence[View]) -> NoisyDataModule:
        size = self.settings.batch_size
        return DigitsDataModule(label_noise(noise), size, augment=bool(views), views=views or ("weak",), seed=seed)

    @override
    def backbone(self) -> nn.Module:
        return SmallCNN(width=self.settings.width)


@dataclass(frozen=True)
class Embeddings(Ground):
    """Features of CIFAR-10 and one hidden layer."""

    noises: ClassVar[tuple[str, ...]] = ("aggre", "worse", "symmetric 0.6")
    features: Path
    labels: Path
    settings: Settings = Settings(test_rows=10_000, epochs=20, batch_size=384, width=512)

    @override
    def data(self, noise: str, seed: int, views: Sequence[View]) -> NoisyDataModule:
        return FeaturesDataModule(
            self.features,
            label_noise(noise, self.labels),
            test_rows=self.settings.test_rows,
            standardize=None,
            views=views or ("weak",),
            noise_std=0.3 if views else 0.0,
            strong_dropout=0.2,
            batch_size=self.settings.batch_size,
            seed=seed,
        )

    @override
    def backbone(self) -> nn.Module:
        return MLP(_width(self.features), (self.settings.width,))


def run(ground: Ground, method: str, noise: str, seed: int) -> Run:
    """One fit: clean test accuracy by epoch, of the networks alone in the last one, and what was selected there."""
    began = time.perf_counter()
    seed_everything(seed, verbose=False)
    strategy, settings = STRATEGIES[method], ground.settings
    data = ground.data(noise, seed, strategy.views)
    data.setup("fit")
    batches = math.ceil(len(data.noisy_targets) / settings.batch_size)
    scale = Scale(settings.epochs, batches, settings.batch_size, data.realized_noise_rate)
    module = strategy.make(Recipe(ground.backbone, data.num_classes, settings.learning_rate), scale)
    fitted = fit(module, data, settings.epochs, settings.clip, strategy.callbacks(scale))
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        "accuracy": fitted.accuracy,
        "alone": _alone(fitted),
        **{name: selected(fitted, name) for name in ("size", "precision", "recall")},
        "realized_noise_rate": data.realized_noise_rate,
        "batches": batches,
        "seconds": round(time.perf_counter() - began, 1),
        "commit": _commit(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs, print the tables and write them beside the record, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, help="npz: x (N, D), y (N,) clean, test set last; else digits")
    parser.add_argument("--labels", type=Path, help="npz with the labels of the training rows")
    parser.add_argument("--test-rows", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--noises", nargs="+", metavar="NOISE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--results", type=Path)
    given = parser.parse_args(arguments)
    if (given.features is None) != (given.labels is None):
        parser.error("--features and --labels go together")
    torch.set_num_threads(1)
    ground = _ground(given)
    name = "digits" if given.features is None else "embeddings"
    results = given.results or RESULTS / f"strategies-{name}.json"
    runs = {
        f"{method}, {noise}, {seed}": {"method": method, "noise": noise, "seed": seed}
        for seed in given.seeds
        for method in given.only
        for noise in given.noises or ground.noises
    }
    record = fill(results, ground.settings, runs, partial(run, ground), given.jobs, read_compact, write_compact)
    rows = tables(record)
    print(rows)
    write_table(results, rows)
    write_picture(results, figure(record))


def _ground(given: argparse.Namespace) -> Ground:
    """The ground with the settings that are given."""
    ground: Ground = Digits() if given.features is None else Embeddings(given.features, given.labels)
    names = ("test_rows", "epochs", "batch_size", "width")
    changed = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return replace(ground, settings=replace(ground.settings, **changed))


def _alone(fitted: Fitted) -> float:
    """Mean accuracy of the networks alone in the last epoch, that of the one where there is one."""
    last = fitted.evaluated[-1]
    members = [value for name, value in last.items() if "/network_" in name]
    return round(statistics.mean(members or [last["test/acc"]]), 5)


def selected(fitted: Fitted, figure: str) -> float | None:
    """A figure of the selection in the last epoch, the mean over the networks; None where nothing is selected."""
    last = list(fitted.module.history.values())[-1]
    places = "selection", "selection/clean", "selection/network_0", "selection/network_1"
    values = [last[f"{place}/{figure}"] for place in places if f"{place}/{figure}" in last]
    return round(statistics.mean(values), 5) if values else None


@cache
def _width(features: Path) -> int:
    with np.load(features) as file:
        return int(file["x"].shape[1])


@cache
def _commit() -> str:
    return commit()


if __name__ == "__main__":
    main()
