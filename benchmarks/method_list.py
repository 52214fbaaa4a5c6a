"""Losses and target methods with the arguments that benchmarks give them: the published ones, in proportion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.grid import Fitted, fit
from benchmarks.label_noises import label_noise
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
from lightning_noisy.functional.label_statistics import transition_counts
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import estimate_transition, paper_loss, paper_setting
from lightning_noisy.networks import MLP

CE = nn.CrossEntropyLoss


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
