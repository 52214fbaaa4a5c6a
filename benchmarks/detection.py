"""Which labels are wrong: rankings of one training run, beside what people use now.

    python -m benchmarks.detection --features cifar10_embeddings.npz --labels cifar10n.npz --seeds 0

Features of CIFAR-10 as in ``benchmarks.methods``, the last 10,000 rows left out; labels given by people (``aggre``,
``worse``), and symmetric and asymmetric noise. One network is trained on all samples, and `LabelIssueReport` looks on.
"audit" is what ``lightning-noisy audit`` trains for so many samples; the other methods are those of
``benchmarks.methods``, arguments and all. Rankings of each run:

- posterior: probability that the label is wrong (``functional.label_posterior``), what reports have;
- mean, early, final: 1 less the confidence in the label over all epochs, the first quarter, in the last;
- margin: minus the area under the margin; forgetting: how often the label was forgotten.

Peers get the same features and labels: cleanlab 2.9 (extra ``benchmark``; its licence is AGPL) with out-of-fold
probabilities of a logistic regression and of the same MLP with cross entropy, by self-confidence and by normalized
margin; and SimiFeat's vote of the 10 nearest neighbours. Seconds are wall-clock time in one process.

Runs that the record holds are not done again. It shows one kind of features. It does not show images trained from
scratch, and the test of the choice is the seeds that it was not made on: settings of "audit" and the posterior were
chosen on seed 0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from benchmarks.detection_tables import figure, tables
from benchmarks.grid import Fitted, Run, fill
from benchmarks.methods import METHODS, Fitter, Settings
from benchmarks.record import RESULTS, commit
from lightning_noisy.callbacks import DALSchedule, LabelIssueReport
from lightning_noisy.data import AsymmetricNoise, FeaturesDataModule, FileNoise, LabelNoise, SymmetricNoise
from lightning_noisy.files import written_aside
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization

NOISES = ("aggre", "worse", "symmetric 0.1", "symmetric 0.2", "symmetric 0.4", "asymmetric 0.2", "asymmetric 0.4")
AUDIT = "audit"
OURS = (AUDIT, "CE", "GCE", "DAL", "NAL", "ELR", "ELR+DAL", "joint optimization", "GSS-SB")
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Detector(Fitter):
    """Trains networks that a report looks on."""

    @override
    def fit(self, loss: nn.Module, *callbacks: Callback, noise: LabelNoise | None = None) -> Fitted:
        return super().fit(loss, *callbacks, Watcher(), noise=noise)

    @override
    def _noise(self) -> LabelNoise:
        kind, _, rate = self.noise.partition(" ")
        if not rate:
            return FileNoise(self.labels, self.noise)
        return SymmetricNoise(float(rate)) if kind == "symmetric" else AsymmetricNoise(float(rate), "cifar10")


class Watcher(LabelIssueReport):
    """A report that nobody writes."""

    @override
    def write(self, folder: Path, thumbnail: Any = None) -> None:
        pass


def audited(fitter: Detector) -> Fitted:
    """What ``own/features-many`` trains."""
    loss = EarlyLearningRegularization(3.0, 0.9, base=DynamicsAwareLoss(0.0))
    return fitter.fit(loss, DALSchedule(q_start=0.0, q_end=1.0, target="loss.base"))


def one_run(features: str, labels: str, settings: Settings, method: str, noise: str, seed: int) -> Run:
    """Rank the labels in one way, or in several from one training run."""
    ours = method in OURS
    fitter = Detector(features, labels, settings, noise, seed, evaluates=False)
    if method == AUDIT:
        fitter = Detector(
            features, labels, settings, noise, seed, standardize="overall", noise_std=0.3, evaluates=False
        )
    data = fitter.data()
    assert data.clean_targets is not None
    given, truth = data.noisy_targets.numpy(), data.clean_targets.numpy()
    began = time.perf_counter()
    found = trained(fitter, method) if ours else PEERS[method](_features(data), given, seed)
    seconds = time.perf_counter() - began
    is_wrong = given != truth
    hits = float((found.called & is_wrong).sum())
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        "seconds": round(seconds, 1),
        "scores": {
            name: [round(float(of(is_wrong, score)), 5) for of in (roc_auc_score, average_precision_score)]
            for name, score in found.scores.items()
        },
        "precision": round(hits / max(1, int(found.called.sum())), 5),
        "recall": round(hits / int(is_wrong.sum()), 5),
        "first_48": int(is_wrong[np.argsort(-found.scores[found.default], kind="stable")[:48]].sum()),
        "noise_rate": round(float(is_wrong.mean()), 5),
        "estimated": [round(rate, 5) for rate in found.rates],
        "lost_classes": found.lost,
        "commit": _commit(),
    }


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


def trained(fitter: Detector, method: str) -> Found:
    """One training run of ours."""
    fitted = audited(fitter) if method == AUDIT else METHODS[method](fitter)
    (report,) = (callback for callback in fitted.module.trainer.callbacks if isinstance(callback, Watcher))
    issues, table, curves = report.issues(), report.table(), report.curves()
    rate = issues.noise_rate
    early = np.nanmean(curves[:, : max(1, curves.shape[1] // 4)], axis=1)
    scores = {
        "posterior": issues.score,
        "mean": 1 - table["confidence"],
        "early": 1 - early,
        "final": 1 - table["final_confidence"],
        "margin": -table["margin"],
        "forgetting": table["forgotten"].astype(float),
    }
    return Found(scores, "posterior", issues.wrong, (rate.share, rate.low, rate.high), len(report.lost))


def _cleanlab(model: Callable[[int], Any], x: NDArray[np.float32], given: NDArray[np.int64], seed: int) -> Found:
    """Confident learning on out-of-fold probabilities."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scaled = StandardScaler().fit_transform(x)
    p = cross_val_predict(model(seed), scaled, given, cv=folds, method="predict_proba")
    rank, filters = import_module("cleanlab.rank"), import_module("cleanlab.filter")
    scores = {
        name: 1 - rank.get_label_quality_scores(given, p, method=name)
        for name in ("self_confidence", "normalized_margin")
    }
    joint = import_module("cleanlab.count").estimate_joint(given, p)
    return Found(scores, "self_confidence", filters.find_label_issues(given, p), (1 - float(np.trace(joint)),))


def _simifeat(x: NDArray[np.float32], given: NDArray[np.int64], seed: int, neighbours: int = 10) -> Found:
    """The vote of the nearest neighbours by cosine, a sample's own label among them (Zhu et al., ICML 2022)."""
    unit = F.normalize(torch.from_numpy(x), dim=1)
    labels = F.one_hot(torch.from_numpy(given)).float()
    votes = torch.cat([_votes(part, unit, labels, neighbours) for part in unit.split(2000)])
    agreement = F.cosine_similarity(votes, labels, dim=1)
    called = votes.argmax(dim=1).numpy() != given
    return Found({"vote": 1 - agreement.double().numpy()}, "vote", called, (float(called.mean()),))


def _votes(part: Tensor, unit: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    nearest = (part @ unit.T).topk(neighbours + 1, dim=1).indices
    return labels[nearest].mean(dim=1)


def _logistic(seed: int) -> Any:
    return LogisticRegression(max_iter=200, random_state=seed)


def _perceptron(seed: int) -> Any:
    return MLPClassifier((512,), batch_size=384, learning_rate_init=1e-3, max_iter=20, random_state=seed)


PEERS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64], int], Found]] = {
    "cleanlab, logistic regression": partial(_cleanlab, _logistic),
    "cleanlab, MLP": partial(_cleanlab, _perceptron),
    "SimiFeat's vote": _simifeat,
}


def _features(data: FeaturesDataModule) -> NDArray[np.float32]:
    images = data.training_images().image(slice(None))
    return images.numpy().astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs that the record lacks, write it, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True, help="npz with x (N, D) and y (N,)")
    parser.add_argument("--labels", required=True, help="npz with aggre and worse")
    parser.add_argument("--methods", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS], metavar="METHOD")
    parser.add_argument("--noises", nargs="+", default=list(NOISES), choices=NOISES, metavar="NOISE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--test-rows", type=int, default=10_000, help="last rows, which are left out (%(default)s)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS / "detection.json")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    settings = Settings(test_rows=options.test_rows, epochs=options.epochs)
    shared = {"features": options.features, "labels": options.labels, "settings": settings}
    runs = {
        f"{method}, {noise}, {seed}": {**shared, "method": method, "noise": noise, "seed": seed}
        for seed in options.seeds
        for noise in options.noises
        for method in options.methods
    }
    record = fill(options.results, settings, runs, one_run, options.jobs)
    text = tables(record)
    with written_aside(options.results.with_suffix(".md")) as file:
        file.write(text.encode())
    with written_aside(options.results.with_suffix(".png")) as file:
        figure(record).savefig(file, format="png", dpi=110)
    print(text)


@cache
def _commit() -> str:
    return commit()


if __name__ == "__main__":
    main()
