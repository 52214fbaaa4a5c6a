from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss, ReverseCrossEntropy, SymmetricCrossEntropy

A = 9.210340371976182  # -log(1e-4)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])


def probability_of_label(logits: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    weights = np.exp(logits.numpy())
    return (weights / weights.sum(1, keepdims=True))[np.arange(len(target)), target.numpy()]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_formula_and_reduction(batch: tuple[torch.Tensor, torch.Tensor], reduction: str) -> None:
    reverse = A * (1 - probability_of_label(*batch))
    symmetric = 0.1 * -np.log(probability_of_label(*batch)) + 2.0 * reverse
    for loss, each in (
        (ReverseCrossEntropy(reduction=reduction), reverse),
        (SymmetricCrossEntropy(0.1, 2.0, reduction=reduction), symmetric),
    ):
        expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
        np.testing.assert_allclose(loss(*batch).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("loss", "weight"), [(ReverseCrossEntropy(0.25, 0.1), 1.0), (SymmetricCrossEntropy(0.0, 2.0, 0.25, 0.1), 2.0)]
)
def test_floors_are_the_arguments(loss: NoisyLabelLoss, weight: float) -> None:
    logits = torch.tensor([[-100.0, 0.0, -100.0]], dtype=torch.float64)
    assert loss(logits, torch.tensor([1])).item() == pytest.approx(-math.log(0.1) * 0.5 * weight)
    assert loss(logits, torch.tensor([0])).item() == pytest.approx(-math.log(0.1) * 1.25 * weight)


@pytest.mark.parametrize("loss", [ReverseCrossEntropy(), SymmetricCrossEntropy(0.1, 1.0)])
def test_one_hot_rows_agree_with_labels(batch: tuple[torch.Tensor, torch.Tensor], loss: NoisyLabelLoss) -> None:
    logits, labels = batch
    rows = torch.nn.functional.one_hot(labels, 4).double()
    torch.testing.assert_close(loss(logits, rows), loss(logits, labels), rtol=1e-12, atol=0)


def test_soft_targets(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, _ = batch
    target = logits.flip(1).softmax(1)
    reverse = -(logits.softmax(1) * target.log()).sum(1)
    forward = -(target * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(ReverseCrossEntropy(reduction="none")(logits, target), reverse, rtol=1e-10, atol=0)
    actual = SymmetricCrossEntropy(6.0, 0.1, reduction="none")(logits, target)
    torch.testing.assert_close(actual, 6.0 * forward + 0.1 * reverse, rtol=1e-10, atol=0)


def test_defaults() -> None:
    reverse, symmetric = ReverseCrossEntropy(), SymmetricCrossEntropy(0.1, 1.0)
    assert (reverse.eps, reverse.label_floor, reverse.reduction) == (1e-7, 1e-4, "mean")
    assert (symmetric.eps, symmetric.label_floor, symmetric.reduction) == (1e-7, 1e-4, "mean")
    for loss in (reverse, symmetric):
        assert loss.requires == ()
        assert loss.soft_targets
        assert loss.store_shapes(4) == {}


def test_weights_can_be_scheduled(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = SymmetricCrossEntropy(0.1, 1.0)
    loss.alpha, loss.beta = 6.0, 0.5
    p = probability_of_label(*batch)
    np.testing.assert_allclose(loss(*batch).item(), (-6.0 * np.log(p) + 0.5 * A * (1 - p)).mean(), rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("alpha", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("beta", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("eps", "a float in [0, 1)", (-1e-7, 1.0, math.nan)),
        ("label_floor", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        ("reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[float, ...]) -> None:
    for value in values:
        message = f"Expected argument `{name}` to be {wanted}, but got {value!r}."
        with pytest.raises(NoisyLabelError) as caught:
            SymmetricCrossEntropy(**{"alpha": 0.1, "beta": 1.0, name: value})
        assert str(caught.value) == message
        if name not in ("alpha", "beta"):
            with pytest.raises(NoisyLabelError) as caught:
                ReverseCrossEntropy(**{name: value})
            assert str(caught.value) == message
