"""What a strategy on linear networks was given in each training step: for oracles in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_noisy import modules
from lightning_noisy.heads import LinearHead
from tests.foreign import make_trainer
from tests.modules.strategies import ViewsDataModule
from tests.small import NUM_CLASSES

Array = NDArray[np.floating]


class Pixels(nn.Module):
    """A backbone without weights."""

    num_features = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@dataclass(eq=False)
class Step:
    """One training step."""

    epoch: int
    batch: int
    views: list[Array]
    target: NDArray[np.integer]
    index: NDArray[np.integer]
    weights: dict[str, Array]
    """Before the step."""
    stores: dict[str, Array]
    """Before the step."""
    loss: float = 0.0

    def probabilities(self, images: Array, prefix: str) -> Array:
        return softmax(
            images.reshape(len(images), -1) @ self.weights[f"{prefix}.head.weight"].T
            + self.weights[f"{prefix}.head.bias"]
        )


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def copied(tensors: dict[str, Tensor]) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        images, target, index = batch
        views = [view.numpy().copy() for view in (images if isinstance(images, (list, tuple)) else [images])]
        stores = copied({name: store.values for name, store in pl_module.section.stores.items()})
        weights = copied(pl_module.state_dict())
        epoch = trainer.current_epoch
        self.steps.append(Step(epoch, batch_idx, views, target.numpy(), index.numpy(), weights, stores))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps[-1].loss = float(outputs["loss"])


def linear_strategy(name: str, loss: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)  # noqa: E731
    criterion = nn.CrossEntropyLoss() if loss is None else loss
    return getattr(modules, name)(Pixels, LinearHead, criterion, NUM_CLASSES, optimizer=optimizer, **options).double()


def record(folder: Any, module: Any, views: int = 1, max_epochs: int = 3, **data: Any) -> list[Step]:
    """Fit a strategy in float64, and say what each step was given."""
    recorder = Recorder()
    trainer = make_trainer(folder, [recorder], max_epochs, precision="64-true")
    trainer.fit(module, datamodule=ViewsDataModule(views, **{"seed": 0, "val_fraction": 0.0, **data}))
    return recorder.steps
