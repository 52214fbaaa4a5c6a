"""What tests of losses with memory share: batches of several epochs, a table, numpy's softmax."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_noisy import SampleStore
from lightning_noisy.losses import NoisyLabelLoss

SAMPLES, CLASSES = 7, 4
TARGET, INDEX = torch.tensor([0, 1, 3]), torch.tensor([6, 0, 2])

Array = NDArray[np.float64]


def epochs(count: int, scale: float = 3.0, seed: int = 0) -> list[Array]:
    """The logits of the batch (TARGET, INDEX) in each epoch."""
    return list(scale * np.random.default_rng(seed).standard_normal((count, 3, CLASSES)))


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def at_label(values: Array) -> Array:
    return values[np.arange(3), TARGET.numpy()]


def attach(loss: NoisyLabelLoss, dtype: torch.dtype = torch.float64) -> NoisyLabelLoss:
    """Give the loss its tables, in float64."""
    for name, shape in loss.store_shapes(CLASSES).items():
        loss.stores[name] = SampleStore(SAMPLES, shape, dtype=dtype)
    return loss


def rows_of(loss: NoisyLabelLoss, name: str) -> Array:
    table = loss.stores[name]
    assert isinstance(table, SampleStore)
    return table.values.numpy()
