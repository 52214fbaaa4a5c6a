"""A whole training step against a loop in plain PyTorch: the same network, data, optimizer and method.

A loop by hand has samples on the device, gathers the rows of a batch and trains; ELR, SELC and DAL are written in it
as their equations say, without logging, checks or anything else. Ours is ``NoisyLabelModule`` under a Trainer, with
our data module. What this does not show: augmentation, which neither has.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.clock import Laps, StepClock, by_turns, quiet_trainer
from benchmarks.random_samples import CLASSES, RandomSamples, random_samples
from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import SELC
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization
from lightning_noisy.networks import CNN8, MLP

BATCH = 128
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP": (lambda: MLP(192, (128,)), (192,)),
    "CNN8": (CNN8, (3, 32, 32)),
}
"""A backbone, and the shape of a sample."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits, labels and positions of the samples to the loss of a batch."""


@dataclass(frozen=True)
class Way:
    """How a network is trained."""

    device: torch.device
    light: bool = False
    """In bfloat16 where that is safe, and channels last."""

    @property
    def precision(self) -> Any:
        """Lightning's name of it."""
        return "bf16-mixed" if self.light else "32-true"

    def laid_out(self, module: nn.Module) -> nn.Module:
        """The module with its weights as they are wanted."""
        return module.to(memory_format=torch.channels_last) if self.light else module

    def autocast(self) -> Any:
        """Around a step in a loop of one's own."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.light else nullcontext()


def cross_entropy() -> Loss:
    """As it is called."""
    return lambda logits, target, index: F.cross_entropy(logits, target)


def early_learning(count: int, device: torch.device) -> Loss:
    """ELR: weight 3, momentum 0.7."""
    rows = torch.zeros(count, CLASSES, device=device)

    def loss(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        p = logits.float().softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            rows[index] = 0.7 * rows[index] + 0.3 * p / p.sum(dim=1, keepdim=True)
        return F.cross_entropy(logits, target) + 3 * (1 - (rows[index] * p).sum(dim=1)).log().mean()

    return loss


def self_ensembled(labels: Tensor) -> Loss:
    """SELC: momentum 0.9."""
    rows = F.one_hot(labels, CLASSES).float()

    def loss(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        log_p = logits.float().log_softmax(dim=1)
        with torch.no_grad():
            rows[index] = 0.9 * rows[index] + 0.1 * log_p.exp()
        return -(rows[index] * log_p).sum(dim=1).mean()

    return loss


def dynamics_aware() -> Loss:
    """DAL at a moment when both terms count: q = 1.2, weight 0.3."""
    q, scale = 1.2, 0.3 / (1.2 * torch.tensor(float(CLASSES)).log().item())

    def loss(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        p = logits.float().softmax(dim=1)
        given = p.gather(1, target[:, None])[:, 0].clamp(min=1e-6)
        return ((1 - given**q) / q - scale * (p * (p + 1e-6).log()).sum(dim=1)).mean()

    return loss


BY_HAND: dict[str, Callable[[Tensor], Loss]] = {
    "CE": lambda labels: cross_entropy(),
    "ELR": lambda labels: early_learning(len(labels), labels.device),
    "SELC": self_ensembled,
    "DAL": lambda labels: dynamics_aware(),
}
OURS: dict[str, Callable[[], tuple[nn.Module, list[Callback]]]] = {
    "CE": lambda: (nn.CrossEntropyLoss(), []),
    "ELR": lambda: (EarlyLearningRegularization(lam=3.0, momentum=0.7), []),
    "SELC": lambda: (nn.CrossEntropyLoss(), [SELC(0.9)]),
    "DAL": lambda: (DynamicsAwareLoss(q=1.2, lam=0.3), []),
}


def by_hand(way: Way, network: str, method: str, count: int, steps: int, skipped: int) -> float:
    """Milliseconds of a step in a loop in plain PyTorch."""
    backbone, shape = NETWORKS[network]
    images, labels = (part.to(way.device) for part in random_samples(shape, count))
    features = backbone()
    model = nn.Sequential(features, nn.Linear(features.num_features, CLASSES))  # type: ignore[arg-type]
    model = way.laid_out(model).to(way.device)
    optimizer, loss = _sgd(model.parameters()), BY_HAND[method](labels)
    laps, order = Laps(way.device), torch.randperm(count, device=way.device)
    for step in range(steps):
        laps.mark()
        index = order[step % (count // BATCH) * BATCH :][:BATCH]
        with way.autocast():
            value = loss(model(images[index]), labels[index], index)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return statistics.median(laps.milliseconds()[skipped:])


def ours(way: Way, network: str, method: str, count: int, steps: int, skipped: int) -> float:
    """Milliseconds of a step under a Trainer."""
    backbone, shape = NETWORKS[network]
    loss, callbacks = OURS[method]()
    module, clock = NoisyLabelModule(backbone(), LinearHead, loss, CLASSES, optimizer=_sgd), StepClock(skipped)
    length = {"max_epochs": -1, "max_steps": steps, "precision": way.precision}
    trainer = quiet_trainer(way.device, clock.around(callbacks), **length)
    trainer.fit(way.laid_out(module), RandomSamples(shape, count, batch_size=BATCH))  # type: ignore[arg-type]
    return clock.step()


def measure(way: Way, networks: tuple[str, ...], count: int, steps: int, skipped: int, rounds: int) -> dict[str, float]:
    """Ratios: each method by hand to cross entropy by hand; ours to that, and to the same method by hand."""
    size = {"count": count, "steps": steps, "skipped": skipped}
    figures = {}
    for network in networks:
        here = Way(way.device, way.light and network == "CNN8")
        runs = {
            f"{method}{kind}": partial(run, here, network, method, **size)
            for method in OURS
            for kind, run in (("", ours), (" by hand", by_hand))
        }
        medians = by_turns(runs, rounds)
        figures[f"{network}, CE by hand: ms"] = medians["CE by hand"]
        for name in runs:
            figures[f"{network}, {name} / CE by hand"] = medians[name] / medians["CE by hand"]
        for method in OURS:
            figures[f"{network}, {method} / {method} by hand"] = medians[method] / medians[f"{method} by hand"]
    return figures


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
