"""The strategies with the arguments that benchmarks give them: the published ones, in proportion to the epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_noisy.data.views import View
from lightning_noisy.heads import LinearHead
from lightning_noisy.modules import (
    DISC,
    SED,
    CoTeaching,
    CoTeachingPlus,
    Decoupling,
    JoCoR,
    MultiNetworkModule,
    NoisyLabelModule,
    StrategyModule,
)

RATE = 0.4
"""What strategies are told that ask for the noise rate, whatever the noise."""


@dataclass(frozen=True)
class Scale:
    """Brings published numbers to a training of other length."""

    epochs: int
    noise_rate: float | None = None
    """The true one, for rows that say so."""

    def count(self, published: float, of: int) -> int:
        """A number of epochs in proportion, at least 1."""
        return max(1, round(published * self.epochs / of))

    def decay(self, published: float, of: int) -> float:
        """What an average that is updated once an epoch keeps, so that it reaches as far back in proportion."""
        return float(published ** (of / self.epochs))


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it is given."""

    module: type[StrategyModule]
    arguments: Callable[[Scale], dict[str, Any]] = lambda scale: {}
    source: str = "nothing to choose"
    """Where the arguments come from."""
    views: tuple[View, ...] = ()
    """Which views it gets of a sample; none: the sample as it is."""
    loss: Callable[[], nn.Module] = nn.CrossEntropyLoss
    callbacks: Callable[[Scale], list[Callback]] = lambda scale: []

    def make(
        self,
        backbone: Callable[[], nn.Module],
        num_classes: int,
        scale: Scale,
        learning_rate: float,
        weight_decay: float = 0.0,
    ) -> StrategyModule:
        """The module, by SGD whose rate falls as a cosine to 0.

        Args:
            backbone: Makes a backbone.
            num_classes: K.
            scale: The length of training.
            learning_rate: Of SGD with momentum 0.9.
            weight_decay: Likewise.
        """
        several = issubclass(self.module, MultiNetworkModule)
        return self.module(
            backbone if several else backbone(),
            LinearHead,
            self.loss(),
            num_classes,
            optimizer=partial(torch.optim.SGD, lr=learning_rate, momentum=0.9, weight_decay=weight_decay),
            lr_scheduler=partial(CosineAnnealingLR, T_max=scale.epochs),
            **self.arguments(scale),
        )


def small_loss(scale: Scale) -> dict[str, Any]:
    """Co-teaching's schedule, for a rate that nobody looked up."""
    return {"forget_rate": RATE, "ramp_epochs": scale.count(10, 200)}


def informed(scale: Scale) -> dict[str, Any]:
    """The same with the true rate, which nobody knows outside a benchmark."""
    return {**small_loss(scale), "forget_rate": scale.noise_rate}


STRATEGIES: dict[str, Strategy] = {
    "CE": Strategy(NoisyLabelModule),
    "CE, weak view": Strategy(NoisyLabelModule, views=("weak",)),
    "CE, strong view": Strategy(NoisyLabelModule, views=("strong",)),
    "Decoupling": Strategy(Decoupling),
    "Co-teaching": Strategy(CoTeaching, small_loss, "T_k 10 of 200 epochs"),
    "Co-teaching, true rate": Strategy(CoTeaching, informed, "the same"),
    "Co-teaching+": Strategy(
        CoTeachingPlus,
        lambda scale: {**small_loss(scale), "warmup_epochs": scale.count(20, 200)},
        "CIFAR-10: T_k 10, warm-up 20 of 200 epochs",
    ),
    "JoCoR": Strategy(
        JoCoR, lambda scale: {**small_loss(scale), "agreement": 0.9}, "CIFAR-10: lambda 0.9; T_k 10 of 200 epochs"
    ),
    "JoCoR, true rate": Strategy(JoCoR, lambda scale: {**informed(scale), "agreement": 0.9}, "the same"),
    "DISC": Strategy(
        DISC,
        lambda scale: {"warmup_epochs": scale.count(20, 200), "momentum": scale.decay(0.99, 200)},
        "CIFAR-10: warm-up 20, mu 0.99 an epoch, of 200 epochs",
        views=("weak", "strong"),
    ),
    "SED": Strategy(
        SED,
        lambda scale: {
            "warmup_epochs": scale.count(20, 100),
            "threshold_momentum": scale.decay(0.9, 100),
            "weight_momentum": scale.decay(0.9, 100),
        },
        "CIFAR-100, 20 %: warm-up 20, m and m' 0.9 an epoch, of 100 epochs",
        views=("weak", "strong"),
    ),
}
