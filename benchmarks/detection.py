"""Which labels are wrong: rankings of one training run, beside what people use now.

    python -m benchmarks.detection --features cifar10_embeddings.npz --labels cifar10n.npz --seeds 0
    python -m benchmarks.detection --seeds 0

Features of CIFAR-10 as in ``benchmarks.methods``, the last 10,000 rows left out; labels given by people (``aggre``,
``worse``), and symmetric and asymmetric noise. Without files, the 64 pixels of scikit-learn's digits under symmetric
noise and pair flips. One network is trained on all samples, and `LabelIssueReport` looks on. "audit" is what
``lightning-noisy audit`` trains for so many samples, as long as it does; the other methods are those of
``benchmarks.methods`` and ``benchmarks.strategies``, arguments and all. Rankings of each run:

- posterior: probability that the label is wrong (``functional.label_posterior``), what reports have;
- mean, early, final: 1 less the confidence in the label over all epochs, the first quarter, in the last;
- loss: the mean cross entropy; a mixture that is fitted to it ranks as it does;
- margin: minus the area under the margin; forgetting: how often the label was forgotten;
- posterior of both, disagreement: of strategies on two networks, mean posterior and difference of mean confidences.

Peers get the same features and labels: cleanlab 2.9 (extra ``benchmark``; its licence is AGPL) with out-of-fold
probabilities of a logistic regression and of the same MLP with cross entropy, by self-confidence and by normalized
margin; SimiFeat's vote of the 10 nearest neighbours; and SelfClean's ratio of distances. Seconds are wall-clock time in
one process.

Runs that the record holds are not done again. It shows one kind of features and one of small scans. It does not show
images trained from scratch, and the test of the choice is the seeds that it was not made on: settings of "audit" and
the posterior were chosen on seed 0.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.detection_methods import AUDIT, LOSSES, TRAINED, Detector, trained
from benchmarks.detection_peers import PEERS
from benchmarks.detection_tables import figure, tables
from benchmarks.grid import Run, fill
from benchmarks.method_list import Settings
from benchmarks.record import RESULTS, commit, write_picture, write_table
from lightning_noisy.data import FeaturesDataModule

NOISES = ("aggre", "worse", "symmetric 0.1", "symmetric 0.2", "symmetric 0.4", "asymmetric 0.2", "asymmetric 0.4")
NOISES_OF_DIGITS = ("symmetric 0.1", "symmetric 0.2", "symmetric 0.4", "pair flips 0.2", "pair flips 0.4")


def one_run(features: str, labels: str, settings: Settings, method: str, noise: str, seed: int) -> Run:
    """Rank the labels in one way, or in several from one training run."""
    detector = Detector(features, labels, settings, noise, seed)
    data = detector.data()
    assert data.clean_targets is not None
    given, truth = data.noisy_targets.numpy(), data.clean_targets.numpy()
    began = time.perf_counter()
    found = trained(detector, method) if method in TRAINED else PEERS[method](_features(data), given, seed)
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
        "signs": None if found.signs is None else {name: round(of, 5) for name, of in asdict(found.signs).items()},
        "remarks": list(found.remarks),
        "commit": _commit(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs that the record lacks, write it, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", help="npz with x (N, D) and y (N,); else digits")
    parser.add_argument("--labels", help="npz with aggre and worse")
    parser.add_argument(
        "--methods", nargs="+", default=[AUDIT, *LOSSES, *PEERS], choices=[*TRAINED, *PEERS], metavar="METHOD"
    )
    parser.add_argument("--noises", nargs="+", metavar="NOISE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--test-rows", type=int, help="last rows, which are left out")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    if (options.features is None) != (options.labels is None):
        parser.error("--features and --labels go together")
    digits = options.features is None
    rows = (360 if digits else 10_000) if options.test_rows is None else options.test_rows
    settings = Settings(rows, options.epochs, 64) if digits else Settings(rows, options.epochs)
    results = options.results or RESULTS / ("detection-digits.json" if digits else "detection.json")
    with digits_file() if digits else nullcontext(options.features) as features:
        shared = {"features": features, "labels": options.labels or "", "settings": settings}
        runs = {
            f"{method}, {noise}, {seed}": {**shared, "method": method, "noise": noise, "seed": seed}
            for seed in options.seeds
            for noise in options.noises or (NOISES_OF_DIGITS if digits else NOISES)
            for method in options.methods
        }
        record = fill(results, settings, runs, one_run, options.jobs)
    text = tables(record)
    write_table(results, text)
    write_picture(results, figure(record))
    print(text)


@contextmanager
def digits_file() -> Iterator[str]:
    """A file of scikit-learn's digits, 64 pixels in [0, 1] each, as long as it is needed."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "digits.npz")
        x, y = load_digits(return_X_y=True)
        np.savez(path, x=(x / 16).astype(np.float32), y=y)
        yield str(path)


def _features(data: FeaturesDataModule) -> NDArray[np.float32]:
    images = data.training_images().image(slice(None))
    return images.numpy().astype(np.float32)


@cache
def _commit() -> str:
    return commit()


if __name__ == "__main__":
    main()
