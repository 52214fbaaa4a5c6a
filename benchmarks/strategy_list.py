"""The strategies with the arguments that benchmarks give them: the published ones, in proportion to the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_noisy.callbacks import SELC, AveragedWeights, DALSchedule, MaskRefresh
from lightning_noisy.data.views import View
from lightning_noisy.heads import CosineHead, LinearHead
from lightning_noisy.losses import DynamicsAwareLoss, NoiseAttentionLoss, paper_loss
from lightning_noisy.modules import (
    DISC,
    SED,
    SPRL,
    SURE,
    UNICON,
    CoLDL,
    CoTeaching,
    CoTeachingPlus,
    Decoupling,
    DivideMix,
    ELRPlus,
    GSSDivideMix,
    GSSDual,
    JoCoR,
    JoSRC,
    MultiNetworkModule,
    NoisyLabelModule,
    StrategyModule,
)
from lightning_noisy.optim import SAM, CosineToConstant

RATE = 0.4
"""What strategies are told that ask for the noise rate, whatever the noise."""
CIFAR_BATCHES = 391
"""Of an epoch of CIFAR in the published settings."""
WARMUP_STEPS = 100
"""Fewer leave a network that does not know all classes yet; the shortest published warm-up has thousands."""


@dataclass(frozen=True)
class Scale:
    """Brings published numbers to a training of other length."""

    epochs: int
    batches: int
    """Of an epoch."""
    batch_size: int
    noise_rate: float | None = None
    """The true one, for rows that say so."""

    def count(self, published: float, of: int) -> int:
        """A number of epochs in proportion, at least 1."""
        return max(1, round(published * self.epochs / of))

    def warmup(self, published: float, of: int) -> int:
        """Epochs of a warm-up in proportion, as many as 100 steps need at least, half of all at most."""
        least = math.ceil(WARMUP_STEPS / self.batches)
        return min(max(self.count(published, of), least), max(1, self.epochs // 2))

    def epoch_decay(self, published: float, of: int) -> float:
        """What a threshold that follows once an epoch keeps: it gets as far in all as in so many epochs."""
        return float(published ** (of / self.epochs))

    def step_decay(self, published: float) -> float:
        """What an average that follows in each step keeps: it reaches back as many epochs as with CIFAR's batches."""
        return float(published ** (CIFAR_BATCHES / self.batches))


@dataclass(frozen=True)
class Recipe:
    """How networks are trained, whatever the strategy."""

    backbone: Callable[[], nn.Module]
    num_classes: int
    learning_rate: float
    weight_decay: float = 0.0


def by_cosine(recipe: Recipe, scale: Scale) -> dict[str, Any]:
    """SGD whose rate falls as a cosine to 0."""
    return {
        "optimizer": partial(torch.optim.SGD, **_sgd(recipe)),
        "lr_scheduler": partial(CosineAnnealingLR, T_max=scale.epochs),
    }


def by_sharpness(recipe: Recipe, scale: Scale) -> dict[str, Any]:
    """SURE's: SAM, and a cosine to half the rate, at which weights are averaged."""
    return {
        "optimizer": partial(SAM, base=torch.optim.SGD, **_sgd(recipe)),
        "lr_scheduler": partial(
            CosineToConstant,
            total_epochs=scale.epochs,
            start_epoch=scale.count(120, 200),
            anneal_epochs=scale.count(10, 200),
            constant_lr=recipe.learning_rate / 2,
        ),
    }


def _sgd(recipe: Recipe) -> dict[str, float]:
    return {"lr": recipe.learning_rate, "momentum": 0.9, "weight_decay": recipe.weight_decay}


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it is given."""

    module: type[StrategyModule]
    arguments: Callable[[Scale], dict[str, Any]] = lambda scale: {}
    source: str = "no argument"
    """Where the arguments come from."""
    views: tuple[View, ...] = ()
    """Which views it gets of a sample; none: the sample as it is."""
    loss: Callable[[], nn.Module] = nn.CrossEntropyLoss
    head: Callable[[int, int], nn.Module] = LinearHead
    training: Callable[[Recipe, Scale], dict[str, Any]] = by_cosine
    callbacks: Callable[[Scale], list[Callback]] = lambda scale: []

    def make(self, recipe: Recipe, scale: Scale) -> StrategyModule:
        """The module."""
        several = issubclass(self.module, MultiNetworkModule)
        backbone = recipe.backbone if several else recipe.backbone()
        options = {**self.training(recipe, scale), **self.arguments(scale)}
        return self.module(backbone, self.head, self.loss(), recipe.num_classes, **options)


def small_loss(scale: Scale) -> dict[str, Any]:
    """Co-teaching's schedule, for a rate that nobody looked up."""
    return {"forget_rate": RATE, "ramp_epochs": scale.count(10, 200)}


def informed(scale: Scale) -> dict[str, Any]:
    """The same with the true rate, which nobody knows outside a benchmark."""
    return {**small_loss(scale), "forget_rate": scale.noise_rate}


def dividing(scale: Scale) -> dict[str, Any]:
    """DivideMix's schedule."""
    return {"lambda_u": 25.0, "warmup_epochs": scale.warmup(10, 300), "rampup_epochs": scale.count(16, 300)}


def by_sample(scale: Scale) -> dict[str, Any]:
    """DISC's thresholds."""
    return {"warmup_epochs": scale.warmup(20, 200), "momentum": scale.epoch_decay(0.99, 200)}


def by_class(scale: Scale) -> dict[str, Any]:
    """SED's thresholds and teacher."""
    return {
        "warmup_epochs": scale.warmup(20, 100),
        "threshold_momentum": scale.epoch_decay(0.9, 100),
        "weight_momentum": scale.epoch_decay(0.9, 100),
        "teacher_decay": scale.step_decay(0.99),
    }


def half_masked(scale: Scale) -> list[Callback]:
    """DFC."""
    return [MaskRefresh(ratio=0.5)]


def rising(*targets: str) -> Callable[[Scale], list[Callback]]:
    """DAL's schedule beside other methods, from cross entropy to mean absolute error."""
    return lambda scale: [DALSchedule(0.0, 1.0, target=target) for target in targets]


PAIR: tuple[View, ...] = ("weak", "weak")
WEAK_STRONG: tuple[View, ...] = ("weak", "strong")
NAL = partial(NoiseAttentionLoss, lam=0.5, label_floor=1e-4)
ELR_DAL = partial(paper_loss, "DAL", "ELR+DAL", "CIFAR-100")
COMBINATIONS: dict[str, Strategy] = {
    "Co-teaching + SELC": Strategy(
        CoTeaching,
        small_loss,
        "those of both; SELC 0.9 from epoch 30 of 200 on",
        callbacks=lambda scale: [
            SELC(0.9, warmup_epochs=scale.count(30, 200), criterion=f"losses.{number}") for number in (0, 1)
        ],
    ),
    "JoCoR + ELR+DAL": Strategy(
        JoCoR,
        lambda scale: {**small_loss(scale), "agreement": 0.9},
        "those of both",
        loss=ELR_DAL,
        callbacks=rising("losses.0.base", "losses.1.base"),
    ),
    "GSS-DB + ELR+DAL": Strategy(
        GSSDual, source="those of both", loss=ELR_DAL, callbacks=rising("losses.0.base", "losses.1.base")
    ),
    "SED + DFC": Strategy(SED, by_class, "those of both", WEAK_STRONG, callbacks=half_masked),
    "DISC + ELR+DAL": Strategy(DISC, by_sample, "those of both", WEAK_STRONG, ELR_DAL, callbacks=rising("loss.base")),
    "DISC + NAL + DFC": Strategy(DISC, by_sample, "those of all three", WEAK_STRONG, NAL, callbacks=half_masked),
    "DivideMix + DAL": Strategy(
        DivideMix,
        lambda scale: {**dividing(scale), "agreement_epochs": 1},
        "those of both; an epoch on agreement",
        PAIR,
        partial(DynamicsAwareLoss, 0.0),
        callbacks=rising("losses.0", "losses.1"),
    ),
}
"""What no paper tried but the last."""
STRATEGIES: dict[str, Strategy] = {
    "CE": Strategy(NoisyLabelModule),
    "CE, weak view": Strategy(NoisyLabelModule, views=("weak",)),
    "CE, strong view": Strategy(NoisyLabelModule, views=("strong",)),
    "Decoupling": Strategy(Decoupling),
    "Co-teaching": Strategy(CoTeaching, small_loss, "T_k 10 of 200 epochs"),
    "Co-teaching, true rate": Strategy(CoTeaching, informed, "the same"),
    "Co-teaching+": Strategy(
        CoTeachingPlus,
        lambda scale: {**small_loss(scale), "warmup_epochs": scale.warmup(20, 200)},
        "CIFAR-10: T_k 10, warm-up 20 of 200 epochs",
    ),
    "JoCoR": Strategy(
        JoCoR, lambda scale: {**small_loss(scale), "agreement": 0.9}, "CIFAR-10: lambda 0.9; T_k 10 of 200 epochs"
    ),
    "JoCoR, true rate": Strategy(JoCoR, lambda scale: {**informed(scale), "agreement": 0.9}, "the same"),
    "DISC": Strategy(DISC, by_sample, "CIFAR-10: warm-up 20, mu 0.99 an epoch, of 200 epochs", WEAK_STRONG),
    "SED": Strategy(
        SED, by_class, "CIFAR-100, 20 %: warm-up 20, m and m' 0.9 an epoch, of 100 epochs; teacher 0.99", WEAK_STRONG
    ),
    "Jo-SRC": Strategy(
        JoSRC,
        lambda scale: {"warmup_epochs": scale.warmup(10, 200), "teacher_decay": scale.step_decay(0.99)},
        "CIFAR-100: warm-up 10 of 200 epochs, eps 0.6, tau 0.75, alpha 0.5; teacher 0.99",
        views=PAIR,
    ),
    "Co-LDL": Strategy(
        CoLDL,
        lambda scale: {"warmup_epochs": scale.warmup(10, 110), "label_lr": 200.0 * scale.batch_size / 16},
        "web images: warm-up 10 of 110 epochs, drop rate 0.25 to 0.5, label rate 200 at batch size 16",
        views=PAIR,
    ),
    "SPRL": Strategy(
        SPRL,
        lambda scale: {"warmup_epochs": scale.warmup(20, 200), "full_epochs": scale.count(30, 200), "resistance": 10.0},
        "CIFAR, symmetric: T_1 20, last 30 of 200 epochs, gamma_d 10",
    ),
    "SURE": Strategy(
        SURE,
        lambda scale: {"mix_weight": 1.0, "rank_weight": 0.2},
        "ANIMAL-10N: weights 1 and 0.2, beta 10, SAM 0.05, average from 120 of 200 epochs at half the rate",
        head=CosineHead,
        training=by_sharpness,
        callbacks=lambda scale: [AveragedWeights(scale.count(120, 200))],
    ),
    "ELR+": Strategy(
        ELRPlus,
        lambda scale: {
            "momentum": 0.7,
            "lam": 3.0,
            "decay": scale.step_decay(0.997),
            "decay_steps": scale.count(40_000 / CIFAR_BATCHES, 200) * scale.batches,
        },
        "CIFAR-10, symmetric: beta 0.7, lambda 3; average 0.997 over 40,000 of 78,200 steps",
    ),
    "GSS-DB": Strategy(GSSDual, source="lambda 2 and 1"),
    "DivideMix": Strategy(DivideMix, dividing, "CIFAR-10, 50 %: lambda_u 25; warm-up 10, ramp 16 of 300 epochs", PAIR),
    "GSS-SSL": Strategy(GSSDivideMix, dividing, "as DivideMix; lambda 0.1 and 0, 0.2 and 0.5", PAIR),
    "UNICON": Strategy(
        UNICON,
        lambda scale: {"lambda_u": 30.0, "warmup_epochs": scale.warmup(10, 350), "rampup_epochs": scale.count(16, 350)},
        "CIFAR-10: lambda_u 30, contrast 0.025; warm-up 10, ramp 16 of 350 epochs",
        views=(*PAIR, "strong", "strong"),
    ),
    **COMBINATIONS,
}
