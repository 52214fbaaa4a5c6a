"""Strategies on softmax regression in float64, where a reader can compute every step: one pass of the data in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_noisy import modules
from lightning_noisy.data import IndexedDataset
from lightning_noisy.heads import LinearHead
from lightning_noisy.modules import StrategyModule
from lightning_noisy.networks import Classifier
from tests.foreign import make_trainer

WIDTH, CLASSES, RATE = 4, 3, 0.5


class Features(nn.Module):
    """No backbone: what comes in goes out."""

    num_features = WIDTH

    def forward(self, images: Tensor) -> Tensor:
        return images


class Samples(Dataset[Any]):
    """Features (N, D), or the same samples in two views, (2, N, D), with labels (N,)."""

    def __init__(self, x: Tensor, targets: Tensor) -> None:
        self.x, self.targets = x, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return (self.x[index] if self.x.ndim == 2 else list(self.x[:, index])), int(self.targets[index])


def make_linear(name: str, loss: nn.Module | None = None, seed: int = 0, **options: Any) -> StrategyModule:
    """A strategy that learns by plain SGD, without momentum or weight decay."""
    torch.manual_seed(seed)
    cls = getattr(modules, name)
    backbone = Features if issubclass(cls, modules.MultiNetworkModule) else Features()
    loss = nn.CrossEntropyLoss() if loss is None else loss
    made: StrategyModule = cls(
        backbone, LinearHead, loss, CLASSES, optimizer=lambda p: torch.optim.SGD(p, lr=RATE), **options
    )
    return made.double()


def make_samples(count: int, views: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of one or two views, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(CLASSES, size=count)
    x = generator.normal(size=(views, count, WIDTH)) + 1.5 * np.eye(WIDTH)[labels]
    wrong = generator.uniform(size=count) < 0.4
    given = np.where(wrong, (labels + 1) % CLASSES, labels)
    features = torch.from_numpy(x)
    return features[0] if views == 1 else features, torch.from_numpy(given)


def fit(
    folder: Path, module: StrategyModule, x: Tensor, y: Tensor, batch: int, epochs: int = 1, *callbacks: Callback
) -> dict[int, dict[str, float]]:
    """Train in the order of the data; returns the metrics of each epoch."""
    loader = DataLoader(IndexedDataset(Samples(x, y)), batch_size=batch)
    make_trainer(folder, callbacks, max_epochs=epochs, precision="64-true").fit(module, loader)
    return module.history


def weights(network: Any) -> list[Tensor]:
    """Copies of the weights of a network, to be trained by an oracle."""
    assert isinstance(network, Classifier)
    return [value.detach().clone().requires_grad_() for value in network.parameters()]


def linear(own: list[Tensor], x: Tensor) -> Tensor:
    """Logits."""
    return x @ own[0].T + own[1]


def cross_entropies(logits: Tensor, target: Tensor) -> Tensor:
    """Of labels (B,) or of distributions (B, K)."""
    rows = torch.eye(CLASSES, dtype=torch.float64)[target] if target.ndim == 1 else target
    return -(rows * (logits - logits.exp().sum(dim=1, keepdim=True).log())).sum(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(dim=1, keepdim=True)


def descend(loss: Tensor, *networks: list[Tensor]) -> None:
    """A step of plain SGD."""
    flat = [weight for own in networks for weight in own]
    gradients = torch.autograd.grad(loss, flat, allow_unused=True)
    with torch.no_grad():
        for weight, gradient in zip(flat, gradients, strict=True):
            if gradient is not None:
                weight -= RATE * gradient


def assert_learned(network: Any, expected: list[Tensor], tolerance: float = 1e-10) -> None:
    for value, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(value.detach(), wanted.detach(), rtol=tolerance, atol=tolerance)
