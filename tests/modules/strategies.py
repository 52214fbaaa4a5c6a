"""Every strategy, made small: what all of them must do is tried on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lightning_noisy import modules
from lightning_noisy.heads import LinearHead
from lightning_noisy.modules import MultiNetworkModule, StrategyModule
from lightning_noisy.networks import SmallCNN
from tests.small import NUM_CLASSES, SmallDataModule


@dataclass(frozen=True)
class Strategy:
    """How to make one small."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """Its own arguments: every stage is reached within three epochs."""

    views: int = 1
    """How many views of an image it trains on."""

    distributed: bool = True
    """Whether two processes equal one."""

    too_large: dict[str, Any] = field(default_factory=dict)
    """Arguments with values above their range."""


SMALL_LOSS = {"forget_rate": 1.0}
ABOVE_ONE, INFINITE, MOST_SMOOTHED = 1 + 1e-6, float("inf"), 1 - 1 / NUM_CLASSES

STRATEGIES: dict[str, Strategy] = {
    "CoTeaching": Strategy({"forget_rate": 0.4, "ramp_epochs": 2}, too_large=SMALL_LOSS),
    "CoTeachingPlus": Strategy({"forget_rate": 0.4, "ramp_epochs": 2, "warmup_epochs": 1}, too_large=SMALL_LOSS),
    "GSSDual": Strategy(),
    "JoCoR": Strategy({"forget_rate": 0.4, "ramp_epochs": 2}, too_large={**SMALL_LOSS, "agreement": 1.0}),
    "DISC": Strategy({"warmup_epochs": 1, "momentum": 0.5}, views=2, too_large={"momentum": 1.0}),
    "SED": Strategy(
        {"warmup_epochs": 1, "threshold_momentum": 0.5, "weight_momentum": 0.5},
        views=2,
        too_large={"threshold_momentum": 1.0, "weight_momentum": 1.0, "teacher_decay": ABOVE_ONE},
    ),
    "Decoupling": Strategy({"warmup_epochs": 1}),
    "DivideMix": Strategy(
        {"warmup_epochs": 1, "agreement_epochs": 1},
        views=2,
        distributed=False,
        too_large={"threshold": 1.0, "alpha": INFINITE},
    ),
    "GSSDivideMix": Strategy(
        {"warmup_epochs": 1, "loss_window": 2},
        views=2,
        distributed=False,
        too_large={
            "threshold": 1.0,
            "alpha": INFINITE,
            "unlabeled_weight_of_draw": ABOVE_ONE,
            "lam_labeled": (1.0, 1.0, 1.0),
            "lam_unlabeled": (1.0, 1.0, 1.0),
        },
    ),
    "UNICON": Strategy(
        {"warmup_epochs": 1, "projection_width": 4}, views=4, distributed=False, too_large={"alpha": INFINITE}
    ),
    "ELRPlus": Strategy(
        {"warmup_epochs": 1, "rampup_steps": 9, "decay_steps": 9},
        distributed=False,
        too_large={"momentum": 1.0, "decay": ABOVE_ONE, "alpha": INFINITE},
    ),
    "SURE": Strategy(distributed=False),
    "SPRL": Strategy({"warmup_epochs": 0, "full_epochs": 0, "total_epochs": 3}),
    "JoSRC": Strategy(
        {"warmup_epochs": 1, "total_epochs": 3},
        views=2,
        too_large={
            "smoothing": MOST_SMOOTHED + 1e-6,
            **dict.fromkeys(("threshold", "final_threshold", "consistency", "teacher_decay"), ABOVE_ONE),
        },
    ),
    "CoLDL": Strategy(
        {"warmup_epochs": 1, "total_epochs": 3},
        views=2,
        distributed=False,
        too_large={
            "drop_rate": 1.0,
            "final_drop_rate": 1.0,
            "smoothing": MOST_SMOOTHED + 1e-6,
            "consistency": ABOVE_ONE,
        },
    ),
}


class Views:
    """The same random crop several times: views that differ."""

    def __init__(self, crop: Callable[[Any], Any], count: int) -> None:
        self.crop, self.count = crop, count

    def __call__(self, image: Any) -> Any:
        return [self.crop(image) for _ in range(self.count)]


class ViewsDataModule(SmallDataModule):
    """Noisy blobs, each as several views."""

    def __init__(self, views: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.views = views

    def training_transform(self) -> Any:
        crop = super().training_transform()
        return crop if self.views == 1 else Views(crop, self.views)


def make_backbone(dropout: float = 0.0) -> nn.Module:
    return SmallCNN(width=4, num_features=8, dropout=dropout)


def make_strategy(name: str, loss: nn.Module | None = None, dropout: float = 0.0, **options: Any) -> StrategyModule:
    """A strategy on networks of a few hundred weights."""
    torch.manual_seed(0)
    cls = getattr(modules, name)
    several = issubclass(cls, MultiNetworkModule)
    backbone = (lambda: make_backbone(dropout)) if several else make_backbone(dropout)
    made: StrategyModule = cls(
        backbone,
        options.pop("head", LinearHead),
        nn.CrossEntropyLoss() if loss is None else loss,
        NUM_CLASSES,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.8),
        **{**STRATEGIES[name].arguments, **options},
    )
    return made


def make_data(name: str, **options: Any) -> ViewsDataModule:
    return ViewsDataModule(**{"views": STRATEGIES[name].views, "seed": 0, **options})
