"""What the losses are tested against: float64 oracles in numpy, with gradients derived by hand, and batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

SCALES = (1e-3, 1.0, 10.0, 1e3, 1e4)
close = {"rtol": 1e-10, "atol": 1e-10}


def numpy_softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def numpy_log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def through_softmax(probability: Array, gradient: Array) -> Array:
    """The gradient by the logits of a function with the given gradient by the probabilities."""
    return probability * (gradient - (probability * gradient).sum(1, keepdims=True))


def inside(values: Array, low: float, high: float) -> Array:
    """1 where a clip lets the gradient pass."""
    return ((values >= low) & (values <= high)).astype(float)


def oracle_gce(logits: Array, target: NDArray[np.int64], q: float, eps: float) -> tuple[Array, Array]:
    probability, rows = numpy_softmax(logits), np.arange(len(logits))
    label_probability = probability[rows, target]
    clipped = np.maximum(label_probability, eps)
    if q > 0:
        values = (1 - clipped**q) / q
    elif eps > 0:
        values = -np.log(clipped)
    else:
        values = -numpy_log_softmax(logits)[rows, target]
    step = probability - np.eye(logits.shape[1])[target]
    return values, (label_probability**q * (label_probability >= eps))[:, None] * step


def oracle_elr(logits: Array, target: Array, history: Array, lam: float, eps: float) -> tuple[Array, Array]:
    softmax = numpy_softmax(logits)
    p = np.clip(softmax, eps, 1 - eps)
    rest = 1 - (history * p).sum(1, keepdims=True)
    values = -(target * numpy_log_softmax(logits)).sum(1) + lam * np.log(rest[:, 0])
    by_p = -lam * history / rest * inside(softmax, eps, 1 - eps)
    return values, softmax * target.sum(1, keepdims=True) - target + through_softmax(softmax, by_p)


def oracle_mae(logits: Array, target: NDArray[np.int64], scale: float) -> tuple[Array, Array]:
    """The literal sum of absolute differences, halved."""
    probability, rows = numpy_softmax(logits), np.eye(logits.shape[1])[target]
    values = scale / 2 * np.abs(probability - rows).sum(1)
    return values, through_softmax(probability, scale / 2 * np.sign(probability - rows))


def oracle_nce(logits: Array, target: NDArray[np.int64]) -> tuple[Array, Array]:
    log_probability, rows = numpy_log_softmax(logits), np.eye(logits.shape[1])[target]
    total = log_probability.sum(1, keepdims=True)
    values = (rows * log_probability).sum(1) / total[:, 0]
    by_log = (rows - values[:, None]) / total
    return values, by_log - numpy_softmax(logits) * by_log.sum(1, keepdims=True)


def rest_of(probability: Array) -> Array:
    """``1 - p``, summed from the other classes, so that no digit is lost where p is near 1."""
    return (probability[:, None, :] * (1 - np.eye(probability.shape[1]))).sum(2)


def focal_parts(probability: Array, log_probability: Array, gamma: float, detach: bool) -> tuple[Array, Array]:
    """Focal losses of all labels, and their derivatives by the logarithms of the probabilities."""
    rest = rest_of(probability)
    by_log = -(rest**gamma)
    if not detach:
        steep = np.divide(rest**gamma, rest, out=np.zeros_like(rest), where=rest > 1e-300)
        by_log += gamma * steep * probability * log_probability
    return -(rest**gamma) * log_probability, by_log


def value_and_gradient(function: Callable[[Tensor], Tensor], logits: Array) -> tuple[Array, Array]:
    leaf = torch.tensor(logits, requires_grad=True)
    losses = function(leaf)
    assert losses.shape == (len(logits),)
    assert losses.dtype == torch.float64
    losses.sum().backward()
    assert leaf.grad is not None
    return losses.detach().numpy(), leaf.grad.numpy()


def assert_equal(actual: tuple[Array, ...], expected: tuple[Array, ...]) -> None:
    assert len(actual) == len(expected)
    for mine, oracle in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, oracle, **close)


class Batch:
    def __init__(self, size: int, num_classes: int, scale: float, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.logits = scale * draw.standard_normal((size, num_classes))
        self.labels = draw.integers(num_classes, size=size)
        self.soft = draw.dirichlet(np.ones(num_classes), size)
        self.history = draw.uniform() * draw.dirichlet(np.ones(num_classes), size)
        self.attention = draw.choice([1.0, 5.0, 1e3]) * draw.standard_normal(size)

    @property
    def one_hot(self) -> Array:
        return np.eye(self.logits.shape[1])[self.labels]


def assert_sum_over_labels(loss: Callable[[Tensor, Tensor], Tensor], batch: Batch, total: float) -> None:
    """A loss whose sum over all labels is constant is robust to symmetric noise."""
    logits = torch.tensor(batch.logits)
    by_label = [loss(logits, torch.full((len(logits),), k)) for k in range(logits.shape[1])]
    np.testing.assert_allclose(sum(by_label).numpy(), total, **close)


batches = st.builds(Batch, st.integers(1, 5), st.integers(2, 20), st.sampled_from(SCALES), st.integers(0, 2**32 - 1))
quick = settings(max_examples=60)


def moderate(seed: int = 0, size: int = 3, num_classes: int = 4) -> Batch:
    batch = Batch(size, num_classes, 1.0, seed)
    batch.attention = np.linspace(-2.0, 2.0, size)
    return batch


def oracle_bootstrapping(logits: Array, eps: float) -> tuple[Array, Array]:
    probability = numpy_softmax(logits)
    values = -(probability * np.log(probability + eps)).sum(1)
    return values, through_softmax(probability, -np.log(probability + eps) - probability / (probability + eps))
