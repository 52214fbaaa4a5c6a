"""Trainings that a report looks on, and what it then says of the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, seed_everything
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from benchmarks.grid import Fitted, fit
from benchmarks.method_list import METHODS, Fitter
from benchmarks.strategy_list import STRATEGIES, Recipe, Scale
from lightning_noisy.callbacks import DALSchedule, LabelIssueReport
from lightning_noisy.data import LabelNoise
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization
from lightning_noisy.modules import MultiNetworkModule
from lightning_noisy.networks import MLP
from lightning_noisy.reports.remarks import Signs, signs_of

AUDIT = "audit"
LOSSES = ("CE", "GCE", "DAL", "NAL", "ELR", "ELR+DAL", "joint optimization", "GSS-SB")
TRAINED = (AUDIT, *LOSSES, *(name for name in STRATEGIES if not name.startswith("CE")))
"""What can be trained, by name: the default of ``lightning-noisy audit``, losses, strategies."""
EPOCHS_OF_MANY = 16
"""Of ``own/features-many``."""
_MANY = 10_000
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Found:
    """What somebody says of the labels."""

    scores: Scores
    """Rankings by name: higher is more suspicious."""

    default: str
    """The one that a user gets."""

    called: NDArray[np.bool_]
    """Labels that count as wrong."""

    rates: tuple[float, ...]
    """The estimated noise rate; ours with the bounds of its interval."""

    lost: int = 0
    """How many classes were given up."""

    signs: Signs | None = None
    """What speaks against the run, of those that have training dynamics."""

    remarks: tuple[str, ...] = ()
    """What the report says of that."""


@dataclass(frozen=True)
class Detector(Fitter):
    """Trains networks that a report looks on."""

    evaluates: bool = False

    @property
    def samples(self) -> int:
        """How many are trained on."""
        with np.load(self.features, allow_pickle=False) as file:
            return len(file["y"]) - self.settings.test_rows

    @override
    def fit(self, loss: nn.Module, *callbacks: Callback, noise: LabelNoise | None = None) -> Fitted:
        return super().fit(loss, *callbacks, Watcher(), noise=noise)


class Watcher(LabelIssueReport):
    """A report that nobody writes."""

    @override
    def write(self, folder: Path, thumbnail: Any = None) -> None:
        pass


def trained(detector: Detector, method: str) -> Found:
    """One training run, and what is known after it; of a strategy on two networks what the first one knows.

    Two networks have two rankings more: the mean of their posteriors, and by how much their confidence differs.
    """
    watchers = watched(detector, method)
    issues = watchers[0].issues()
    scores = {"posterior": issues.score, **_by_dynamics(watchers[0])}
    if len(watchers) > 1:
        posteriors = [watcher.issues().score for watcher in watchers]
        confidences = [watcher.table()["confidence"] for watcher in watchers]
        scores["posterior of both"] = np.mean(posteriors, axis=0)
        scores["disagreement"] = np.abs(confidences[0] - confidences[1])
    rate = issues.noise_rate
    return Found(
        scores,
        "posterior",
        issues.wrong,
        (rate.share, rate.low, rate.high),
        len(watchers[0].lost),
        signs_of(watchers[0].table(), rate.share, issues.wrong),
        issues.remarks,
    )


def watched(detector: Detector, method: str) -> Sequence[Watcher]:
    """The reports of a training run, one for each network."""
    if method in STRATEGIES and method not in LOSSES:
        return _by_strategy(detector, method)
    fitted = _audited(detector) if method == AUDIT else METHODS[method](detector)
    return [callback for callback in fitted.module.trainer.callbacks if isinstance(callback, Watcher)]


def _audited(detector: Detector) -> Fitted:
    """What ``own/features-many`` trains, and for fewer samples ``own/features``."""
    detector = replace(detector, standardize="overall", noise_std=1.0)
    if detector.samples >= _MANY:
        detector = replace(detector, noise_std=0.3, settings=replace(detector.settings, epochs=EPOCHS_OF_MANY))
    loss = EarlyLearningRegularization(3.0, 0.9, base=DynamicsAwareLoss(0.0))
    return detector.fit(loss, DALSchedule(q_start=0.0, q_end=1.0, target="loss.base"))


def _by_strategy(detector: Detector, method: str) -> Sequence[Watcher]:
    """A strategy as in ``benchmarks.strategies``, on the same features and views."""
    seed_everything(detector.seed, verbose=False)
    strategy, settings = STRATEGIES[method], detector.settings
    data = replace(detector, noise_std=0.3 if strategy.views else 0.0).data(
        views=strategy.views or ("weak",), strong_dropout=0.2
    )
    batches = math.ceil(len(data.noisy_targets) / settings.batch_size)
    scale = Scale(settings.epochs, batches, settings.batch_size, data.realized_noise_rate)
    backbone = partial(MLP, data.training_images().image(0).numel(), (settings.hidden,))
    module = strategy.make(Recipe(backbone, data.num_classes, settings.learning_rate), scale)
    criteria = [f"losses.{number}" for number in (0, 1)] if isinstance(module, MultiNetworkModule) else [None]
    watchers = [Watcher(criterion=criterion) for criterion in criteria]
    fit(module, data, settings.epochs, settings.clip, [*strategy.callbacks(scale), *watchers], limit_val_batches=0)
    return watchers


def _by_dynamics(report: Watcher) -> Scores:
    """Rankings by one figure of training dynamics each."""
    table, curves = report.table(), report.curves()
    given = table["label"].astype(np.int64)
    early = np.nanmean(curves[:, : max(1, curves.shape[1] // 4)], axis=1)
    return {
        "mean": 1 - table["confidence"],
        "early": 1 - early,
        "final": 1 - table["final_confidence"],
        "loss": -report.beliefs()[np.arange(len(given)), given].astype(np.float64),
        "margin": -table["margin"],
        "forgetting": table["forgotten"].astype(float),
    }
