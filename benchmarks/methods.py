"""Every loss and target method on cached features under three kinds of label noise.

    python -m benchmarks.methods --features cifar10_embeddings.npz --labels cifar10n.npz --jobs 2

Features of CIFAR-10 (N, D) from a network that was trained on ImageNet, the last 10,000 rows being the test set; labels
given by people (CIFAR-10N, ``aggre`` and ``worse``), and 60 % symmetric noise over the other classes. The features
enter as they are: of principal components the scale tells what matters. A hidden layer of width 512 with ReLU and a
linear head are trained for 20 epochs by SGD without weight decay, batch size 384, learning rate 0.1 falling as a cosine
to 0, momentum 0.9, gradients clipped at norm 5, the same for all methods.

Arguments are the published ones for CIFAR-10 (``losses.paper_setting``, else the papers' code). Those that count
epochs are brought to 20 epochs in proportion; nothing was tuned. The transition matrix of the corrections is estimated
from a first network, as published; a second row has the true one. Methods that need several views are left out.

Runs that the record holds are not done again, so a benchmark that was interrupted goes on where it stopped.

It shows what each method does on top of good features, with arguments that were chosen for training from images. It
does not show which is best once tuned, nor training from images. The best epoch is chosen by the test set, for
comparison with papers that do so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.compact import read_compact, write_compact
from benchmarks.grid import Fitted, Run, fill, fit, spread
from benchmarks.label_noises import label_noise
from benchmarks.record import RESULTS, commit
from lightning_noisy import NoisyLabelModule, losses
from lightning_noisy.callbacks import (
    SELC,
    DALSchedule,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    MixUp,
    ParameterSchedule,
)
from lightning_noisy.data import FeaturesDataModule, FileNoise, LabelNoise
from lightning_noisy.data.features import Scaling
from lightning_noisy.files import written_aside
from lightning_noisy.functional.label_statistics import transition_counts
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import estimate_transition, paper_loss, paper_setting
from lightning_noisy.networks import MLP

CE = nn.CrossEntropyLoss
SYMMETRIC = "symmetric 0.6"
NOISES = ("aggre", "worse", SYMMETRIC)


@dataclass(frozen=True)
class Settings:
    """What all runs of a record share."""

    test_rows: int = 10_000
    epochs: int = 20
    batch_size: int = 384
    hidden: int = 512
    learning_rate: float = 0.1
    clip: float = 5.0


@dataclass(frozen=True)
class Fitter:
    """Trains networks on one kind of noise from one seed."""

    features: str
    labels: str
    settings: Settings
    noise: str
    seed: int
    standardize: Scaling | None = None
    noise_std: float = 0.0
    evaluates: bool = True
    """Whether accuracy on the test set is measured after each epoch."""

    def data(self, noise: LabelNoise | None = None, **options: Any) -> FeaturesDataModule:
        """Features with noisy labels, or with labels of their own; ``options`` are more of the data module's."""
        data = FeaturesDataModule(
            self.features,
            noise or label_noise(self.noise, self.labels),
            batch_size=self.settings.batch_size,
            seed=self.seed,
            test_rows=self.settings.test_rows,
            standardize=self.standardize,
            noise_std=self.noise_std,
            **options,
        )
        data.setup("fit")
        return data

    def fit(
        self,
        loss: nn.Module,
        *callbacks: Callback,
        noise: LabelNoise | None = None,
        head: Callable[[int, int], nn.Module] = LinearHead,
    ) -> Fitted:
        """Train a network from scratch, on labels of its own if given."""
        torch.manual_seed(self.seed)
        data = self.data(noise)
        module = NoisyLabelModule(
            MLP(data.training_images().image(0).numel(), (self.settings.hidden,)),
            head,
            loss,
            data.num_classes,
            optimizer=partial(torch.optim.SGD, lr=self.settings.learning_rate, momentum=0.9),
            lr_scheduler=partial(CosineAnnealingLR, T_max=self.settings.epochs),
        )
        limit = None if self.evaluates else 0
        return fit(module, data, self.settings.epochs, self.settings.clip, callbacks, limit_val_batches=limit)

    def epochs(self, published: float, of: int) -> int:
        """A number of epochs in proportion to the length of training, at least 1."""
        return max(1, round(published * self.settings.epochs / of))


Method = Callable[[Fitter], Fitted]


def plain(loss: Callable[[], nn.Module], *callbacks: Callable[[], Callback]) -> Method:
    """A loss, with callbacks, none of which counts epochs."""
    return lambda fitter: fitter.fit(loss(), *(callback() for callback in callbacks))


def published(paper: str, loss: str, data: str = "CIFAR-10") -> Method:
    """A loss with the arguments of a paper, and the callbacks that move it."""
    return plain(partial(paper_loss, paper, loss, data), *_callbacks(paper_setting(paper, loss, data)))


def truncated(fitter: Fitter) -> Fitted:
    """GCE of likely labels, from epoch 40 of 120 on."""
    return fitter.fit(
        losses.TruncatedGeneralizedCrossEntropy(
            0.7, 0.5, warmup_epochs=fitter.epochs(39, 120), every_n_epochs=fitter.epochs(10, 120)
        )
    )


def sparse(fitter: Fitter) -> Fitted:
    """CE+SR, whose penalty grows by a factor each of 120 epochs."""
    growth = 1.03 ** (120 / fitter.settings.epochs)
    return fitter.fit(losses.SparseRegularization(CE(), tau=0.5, lam=1.2, p=0.1, rho=growth))


def selc(loss: Callable[[], nn.Module], warmup: int, of: int, **arguments: Any) -> Method:
    """A loss with SELC's targets after some of the epochs."""
    return lambda fitter: fitter.fit(loss(), SELC(0.9, warmup_epochs=fitter.epochs(warmup, of), **arguments))


def selc_plus(fitter: Fitter) -> Fitted:
    """A second network, from the labels that SELC comes to, with mixup."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "labels.npz"))
        fitter.fit(CE(), SELC(0.9, warmup_epochs=fitter.epochs(30, 200)), LabelWriter(path))
        return fitter.fit(CE(), MixUp(0.9), noise=FileNoise(path))


def corrected(correction: Callable[[Tensor], nn.Module]) -> Method:
    """A second network, with the transition matrix that the first one shows."""

    def method(fitter: Fitter) -> Fitted:
        first = fitter.fit(CE())
        images = first.data.training_images()
        with torch.no_grad():
            probabilities = first.module(images.image(slice(None))).softmax(dim=1)
        return fitter.fit(correction(estimate_transition(probabilities, percentile=97)))

    return method


def informed(correction: Callable[[Tensor], nn.Module]) -> Method:
    """A correction with the transition matrix of the labels themselves, which nobody knows outside a benchmark."""

    def method(fitter: Fitter) -> Fitted:
        data = fitter.data()
        assert data.clean_targets is not None
        counts = transition_counts(data.clean_targets, data.noisy_targets, data.num_classes).double()
        return fitter.fit(correction(counts / counts.sum(dim=1, keepdim=True)))

    return method


def staged(*stages: Callable[[], nn.Module]) -> Method:
    """Losses one after the other, for equally many epochs."""

    def method(fitter: Fitter) -> Fitted:
        starts = [stage * fitter.settings.epochs // len(stages) for stage in range(len(stages))]
        return fitter.fit(losses.StagedLoss([stage() for stage in stages], starts))

    return method


def negative_then_positive(fitter: Fitter) -> Fitted:
    """NLNL's three stages of 720 epochs, the later ones of which look at the last 10."""
    window = fitter.epochs(10, 3 * 720)
    stages = losses.NegativeLearning, losses.SelectiveNegativeLearning, losses.SelectivePositiveLearning
    return staged(*(partial(stage, window=window) for stage in stages))(fitter)


def self_adaptive(fitter: Fitter) -> Fitted:
    """SAT, whose targets begin in epoch 60 of 200."""
    return fitter.fit(losses.SelfAdaptiveTraining(warmup_epochs=fitter.epochs(60, 200)))


def peer(fitter: Fitter) -> Fitted:
    """Peer loss, whose weight grows to 1."""
    return fitter.fit(losses.PeerLoss(0.0), ParameterSchedule("loss.alpha", 0.0, 1.0))


def abstaining(fitter: Fitter) -> Fitted:
    """DAC, which may abstain from epoch 20 of 200 on."""
    return fitter.fit(losses.DeepAbstainingClassifier(warmup_epochs=fitter.epochs(20, 200)))


def joint_optimization(fitter: Fitter) -> Fitted:
    """The first run of joint optimization: labels move from epoch 70 of 200 on."""
    labels = JointOptimizationLabels(fitter.epochs(70, 200), fitter.epochs(10, 200))
    return fitter.fit(losses.JointOptimization(alpha=1.0, beta=0.5), labels)


def pencil(fitter: Fitter) -> Fitted:
    """PENCIL's three stages of 70, 130 and 120 epochs."""
    stages = {"warmup_epochs": fitter.epochs(70, 320), "fixed_from_epoch": fitter.epochs(200, 320)}
    return fitter.fit(losses.PencilLoss(alpha=0.4, beta=0.1, label_lr=600.0, scale=10.0, **stages))


def _callbacks(setting: dict[str, Any]) -> list[Callable[[], Callback]]:
    found = []
    for entry in setting.get("callbacks", []):
        module, _, name = entry["class_path"].rpartition(".")
        found.append(partial(getattr(import_module(module), name), **entry["init_args"]))
    return found


NAL = partial(losses.NoiseAttentionLoss, lam=0.5, label_floor=1e-4)
METHODS: dict[str, Method] = {
    "CE": plain(CE),
    "label smoothing": plain(partial(CE, label_smoothing=0.1)),
    "mixup": plain(CE, MixUp),
    "FL": published("APL", "FL"),
    "GCE": published("GCE", "GCE"),
    "truncated GCE": truncated,
    "MAE": plain(losses.MeanAbsoluteError),
    "RCE": plain(losses.ReverseCrossEntropy),
    "SCE": published("SCE", "SCE"),
    "TCE": published("DAL", "TCE"),
    "Poly-1": published("DAL", "Poly-1"),
    "NCE": plain(losses.NormalizedCrossEntropy),
    "NFL": plain(losses.NormalizedFocalLoss),
    "NGCE": plain(partial(losses.NormalizedGeneralizedCrossEntropy, 0.1)),
    "NCE+RCE": published("APL", "NCE+RCE"),
    "NCE+MAE": published("APL", "NCE+MAE"),
    "NFL+RCE": published("APL", "NFL+RCE"),
    "NFL+MAE": published("APL", "NFL+MAE"),
    "NGCE+RCE": published("APL", "NGCE+RCE"),
    "NGCE+MAE": published("APL", "NGCE+MAE"),
    "NNCE": plain(losses.NormalizedNegativeCrossEntropy),
    "NNFL": plain(losses.NormalizedNegativeFocalLoss),
    "ANL-CE": published("ANL", "ANL-CE"),
    "ANL-FL": published("ANL", "ANL-FL"),
    "ANL-CE-ER": published("ANL", "ANL-CE-ER"),
    "AGCE": plain(partial(losses.AsymmetricGeneralizedCrossEntropy, 0.6, 0.6)),
    "AUL": plain(partial(losses.AsymmetricUnhingedLoss, 5.5, 3.0)),
    "AEL": plain(partial(losses.AsymmetricExponentialLoss, 2.5)),
    "NCE+AGCE": published("ALF", "NCE+AGCE"),
    "NCE+AUL": published("ALF", "NCE+AUL"),
    "NCE+AEL": published("ALF", "NCE+AEL"),
    "CE+SR": sparse,
    "JS": published("DAL", "JS"),
    "BTL": published("DAL", "BTL"),
    "DAL": published("DAL", "DAL"),
    "DGCE": plain(partial(losses.DynamicsAwareLoss, 0.8), partial(DALSchedule, q_start=0.8, q_end=1.5, lam_end=0.0)),
    "dynamic TCE": published("DAL", "dynamic TCE", "CIFAR-100"),
    "dynamic JS": published("DAL", "dynamic JS", "CIFAR-100"),
    "ELR": published("ELR", "ELR", "CIFAR-10, symmetric"),
    "ELR+DAL": published("DAL", "ELR+DAL", "CIFAR-100"),
    "SAT": self_adaptive,
    "SELC": selc(CE, 30, 200),
    "SELC+": selc_plus,
    "SELC+DAL": selc(partial(losses.DynamicsAwareLoss, 0.8), 30, 200),
    "NAL": selc(NAL, 59, 500, floor=1e-4),
    "RNAL": selc(partial(NAL, beta=0.1), 59, 500, floor=1e-4),
    "NAL by confidence": selc(partial(NAL, attention="confidence"), 59, 500, floor=1e-4),
    "NAL without targets": plain(NAL),
    "bootstrap, soft": plain(partial(losses.Bootstrapping, 0.95, "soft")),
    "bootstrap, hard": plain(partial(losses.Bootstrapping, 0.8, "hard")),
    "forward": corrected(losses.ForwardCorrection),
    "backward": corrected(losses.BackwardCorrection),
    "forward, true matrix": informed(losses.ForwardCorrection),
    "backward, true matrix": informed(losses.BackwardCorrection),
    "peer loss": peer,
    "L_DMI": staged(CE, losses.DeterminantMutualInformation),
    "NL": published("DAL", "NLNL"),
    "NLNL": negative_then_positive,
    "DAC": abstaining,
    "joint optimization": joint_optimization,
    "PENCIL": pencil,
    "GSS-SB": plain(CE, GradientSwitching),
}


def run(features: str, labels: str, settings: Settings, method: str, noise: str, seed: int) -> Run:
    """One method: clean test accuracy by epoch, of the network that it ends with."""
    began = time.perf_counter()
    seed_everything(seed, verbose=False)  # losses and callbacks with draws of their own take it
    record = METHODS[method](Fitter(features, labels, settings, noise, seed)).record()
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        **record,
        "agreement_with_labels": record["agreement_with_labels"][-1],
        "seconds": round(time.perf_counter() - began, 1),
        "commit": _commit(),
    }


def table(record: dict[str, Any]) -> str:
    """Means and standard deviations over the seeds, as Markdown."""
    curves = _curves(record)
    noises = [noise for noise in NOISES if any(noise == key[1] for key in curves)]
    columns = ["method", *(f"{noise}, {epoch}" for noise in noises for epoch in ("last", "best")), "seeds"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for method in (name for name in METHODS if any(name == key[0] for key in curves)):
        cells = [_cells(curves.get((method, noise), [])) for noise in noises]
        seeds = sorted({len(curves.get((method, noise), [])) for noise in noises})
        lines.append(f"| {method} | {' | '.join(cells)} | {' to '.join(map(str, seeds))} |")
    return "\n".join(lines) + "\n"


def figure(record: dict[str, Any]) -> Figure:
    """Mean accuracy of each method in its last and in its best epoch, a panel for each noise.

    Methods stand in the order of the mean of their last epochs over the noises, the highest on top; the highest of each
    panel is marked.
    """
    curves = _curves(record)
    noises = [noise for noise in NOISES if any(noise == key[1] for key in curves)]
    names = _sorted(curves, noises)
    drawn = Figure(figsize=(3.6 * len(noises) + 1.6, 0.19 * len(names) + 1.0), layout="constrained")
    panels = drawn.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    for axes, noise in zip(panels, noises, strict=True):
        means = {method: _means(curves[method, noise]) for method in names if (method, noise) in curves}
        rows = [names.index(method) for method in means]
        last, best = zip(*means.values(), strict=True)
        axes.hlines(rows, last, best, color="0.75", linewidth=1.5, zorder=1)
        axes.scatter(best, rows, s=16, facecolor="white", edgecolor="tab:blue", label="best epoch")
        axes.scatter(last, rows, s=16, color="tab:blue", label="last epoch")
        if "CE" in means:
            axes.axvline(means["CE"][0], color="tab:red", linewidth=0.8, label="last epoch of CE")
        _mark_highest(axes, last, rows)
        axes.set_title(noise, fontsize=10)
        axes.set_xlabel("clean test accuracy, %")
        axes.grid(axis="x", linewidth=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=8)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return drawn


def _sorted(curves: dict[tuple[str, str], list[list[float]]], noises: Sequence[str]) -> list[str]:
    """The methods, the highest mean of last epochs over the noises that each has first."""
    means = {
        method: statistics.fmean(_means(curves[method, noise])[0] for noise in noises if (method, noise) in curves)
        for method in METHODS
        if any((method, noise) in curves for noise in noises)
    }
    return sorted(means, key=lambda method: -means[method])


def _mark_highest(axes: Axes, last: Sequence[float], rows: Sequence[int]) -> None:
    """A star and its value on the highest last epoch."""
    place = max(range(len(last)), key=lambda number: last[number])
    axes.scatter(last[place], rows[place], s=110, marker="*", color="tab:orange", zorder=3, label="highest last epoch")
    where = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8}
    axes.annotate(f"{last[place]:.2f}", (last[place], rows[place]), **where)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs, print the table and write it beside the record, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="npz: x (N, D), y (N,) clean, test set last")
    parser.add_argument("--labels", type=Path, required=True, help="npz with the labels of the training rows")
    parser.add_argument("--test-rows", type=int, default=Settings.test_rows)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--hidden", type=int, default=Settings.hidden)
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS / "methods.json")
    parser.add_argument("--picture", type=Path, help="default: beside the record")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(given.test_rows, given.epochs, given.batch_size, given.hidden, given.learning_rate)
    runs = {
        f"{method}, {noise}, {seed}": {"method": method, "noise": noise, "seed": seed}
        for seed in given.seeds
        for method in given.methods
        for noise in given.noises
    }
    one_run = partial(run, str(given.features), str(given.labels), settings)
    record = fill(given.results, settings, runs, one_run, given.jobs, read_compact, write_compact)
    rows = table(record)
    print(rows)
    with written_aside(given.results.with_suffix(".md")) as file:
        file.write(rows.encode())
    with written_aside(given.picture or given.results.with_suffix(".png")) as file:
        figure(record).savefig(file, format="png", dpi=110)


def _curves(record: dict[str, Any]) -> dict[tuple[str, str], list[list[float]]]:
    """Accuracies by epoch, one list for each seed, by method and noise."""
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for seen in record["runs"].values():
        curves.setdefault((seen["method"], seen["noise"]), []).append(seen["accuracy"])
    return curves


def _means(curves: list[list[float]]) -> tuple[float, float]:
    """Mean last and mean best accuracy, in per cent."""
    return 100 * statistics.mean(curve[-1] for curve in curves), 100 * statistics.mean(map(max, curves))


@cache
def _commit() -> str:
    return commit()


def _cells(curves: list[list[float]]) -> str:
    if not curves:
        return "- | -"
    return f"{spread([curve[-1] for curve in curves])} | {spread([max(curve) for curve in curves])}"


if __name__ == "__main__":
    main()
