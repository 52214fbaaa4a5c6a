from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy import SampleStore
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    EarlyLearningRegularization,
    FocalLoss,
    GeneralizedCrossEntropy,
    MeanAbsoluteError,
    NoisyLabelLoss,
    SparseRegularization,
)
from tests.foreign import make_trainer
from tests.small import SmallDataModule, make_module

LABELS, INDEX = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([6, 0, 2, 5, 1, 3])
CIFAR100 = {"tau": 0.5, "lam": 10.0, "p": 0.01, "rho": 1.02}


@pytest.fixture
def logits() -> torch.Tensor:
    return 4 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def tempered_softmax(logits: torch.Tensor, tau: float, normalize: bool = True) -> np.ndarray:
    values = logits.detach().double().numpy()
    length = np.linalg.norm(values, axis=1, keepdims=True) if normalize else 1.0
    weights = np.exp(values / length / tau)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_formula_and_reduction(logits: torch.Tensor, reduction: str, normalize: bool) -> None:
    probability = tempered_softmax(logits, 0.5, normalize)
    penalty = (np.maximum(probability, 1e-3) ** 0.1).sum(1)
    each = -np.log(probability[np.arange(6), LABELS]) + 1.2 * 1.03**7 * penalty
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    base = nn.CrossEntropyLoss(reduction=reduction)
    loss = SparseRegularization(base, 0.5, 1.2, 0.1, 1.03, normalize=normalize, eps=1e-3, reduction=reduction)
    np.testing.assert_allclose(loss(logits, LABELS, epoch=7).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("base", "function"),
    [
        (FocalLoss(0.5), lambda p: -np.sqrt(1 - p) * np.log(p)),
        (GeneralizedCrossEntropy(0.01), lambda p: (1 - p**0.01) / 0.01),
    ],
)
def test_any_base_sees_the_tempered_logits(logits: torch.Tensor, base: nn.Module, function: Any) -> None:
    p = tempered_softmax(logits, 0.5)[np.arange(6), LABELS]
    value = SparseRegularization(base, 0.5, 0.0, 0.1, 1.0)(logits, LABELS, epoch=0)
    np.testing.assert_allclose(value.item(), function(p).mean(), rtol=1e-9)


@pytest.mark.parametrize(
    ("every_n_epochs", "growths"), [(1, [0, 1, 2, 3, 4, 5, 6]), (5, [0, 0, 0, 0, 0, 1, 1]), (3, [0, 0, 0, 1, 1, 1, 2])]
)
def test_weight_grows_after_each_period(every_n_epochs: int, growths: list[int]) -> None:
    loss = SparseRegularization(nn.CrossEntropyLoss(), 0.1, 4.0, 0.1, 2.0, every_n_epochs)
    assert [loss.weight(epoch) for epoch in range(7)] == [4.0 * 2.0**growth for growth in growths]


def test_weight_is_that_of_a_loop_that_multiplies_after_epochs() -> None:
    """The official code's way, with its numbers."""
    loss, lam = SparseRegularization(nn.CrossEntropyLoss(), 0.1, 4.0, 0.1, 2.0, 5), 4.0
    for epoch in range(50):
        assert loss.weight(epoch) == pytest.approx(lam)
        lam *= 2.0 if (epoch + 1) % 5 == 0 else 1.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_length_of_the_logits_does_not_matter(logits: torch.Tensor, scale: float) -> None:
    loss = SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100)
    torch.testing.assert_close(loss(scale * logits, LABELS, epoch=3), loss(logits, LABELS, epoch=3))


def test_gradient_is_perpendicular_to_the_logits(logits: torch.Tensor) -> None:
    leaf = logits.clone().requires_grad_()
    SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100)(leaf, LABELS, epoch=3).backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().min() > 0
    torch.testing.assert_close((leaf.grad * logits).sum(1), torch.zeros(6, dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda z: SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100)(z, LABELS, epoch=3), leaf
    )


def test_arguments_can_be_scheduled(logits: torch.Tensor) -> None:
    loss = SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100)
    loss.tau, loss.lam, loss.p = 0.3, 2.0, 0.5
    expected = SparseRegularization(nn.CrossEntropyLoss(), 0.3, 2.0, 0.5, 1.02)
    assert torch.equal(loss(logits, LABELS, epoch=4), expected(logits, LABELS, epoch=4))


class Epochs(NoisyLabelLoss):
    requires = ("epoch", "features")
    soft_targets = True

    def losses(self, logits: torch.Tensor, target: torch.Tensor, **context: Any) -> torch.Tensor:
        assert context == {"epoch": 3, "features": "all"}
        return logits.sum(1) * 0.0 + 7.0


def test_what_the_base_requires_it_gets(logits: torch.Tensor) -> None:
    loss = SparseRegularization(Epochs(), 0.5, 0.0, 0.1, 1.0)
    assert loss.requires == ("epoch", "features")
    assert loss(logits, LABELS, epoch=3, features="all").item() == 7.0
    early = SparseRegularization(EarlyLearningRegularization(momentum=0.5), 0.5, 0.0, 0.1, 1.0)
    assert early.requires == ("epoch", "index")
    assert early.store_shapes(4) == {"base.prediction": (4,)}
    early.stores["base.prediction"] = table = SampleStore(7, (4,))
    early(logits, LABELS, epoch=0, index=INDEX)
    np.testing.assert_allclose(table.get(INDEX).numpy(), 0.5 * tempered_softmax(logits, 0.5), rtol=1e-3)


def test_soft_targets_are_the_base_s_business(logits: torch.Tensor) -> None:
    rows = logits.flip(1).softmax(1)
    assert SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100).soft_targets
    p = tempered_softmax(logits, 0.5)
    value = SparseRegularization(nn.CrossEntropyLoss(), 0.5, 0.0, 0.1, 1.0)(logits, rows, epoch=0)
    np.testing.assert_allclose(value.item(), -(rows.numpy() * np.log(p)).sum(1).mean(), rtol=1e-9)
    hard = SparseRegularization(MeanAbsoluteError(), **CIFAR100)
    assert not hard.soft_targets
    with pytest.raises(NoisyLabelError, match=r"^SparseRegularization expects int64 labels \(B,\) for its .*: give"):
        hard(logits, rows, epoch=0)


def test_defaults() -> None:
    loss = SparseRegularization(nn.CrossEntropyLoss(), **CIFAR100)
    assert (loss.every_n_epochs, loss.normalize, loss.eps, loss.reduction) == (1, True, 1e-7, "mean")
    assert loss.state_dict() == loss.store_shapes(4) == {}
    assert "tau=0.5, lam=10.0, p=0.01, rho=1.02, every_n_epochs=1, normalize=True, eps=1e-07" in repr(loss)


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("tau", "a finite float > 0", (0.0, -1.0, math.nan, math.inf)),
        ("lam", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("p", "a float in (0, 1]", (0.0, 1.1, math.nan)),
        ("rho", "a finite float > 0", (0.0, math.nan, math.inf)),
        ("every_n_epochs", "an int of at least 1", (0, -1, 1.5)),
        ("eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        ("reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            SparseRegularization(**{"base": nn.CrossEntropyLoss(), **CIFAR100, name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."


def test_refused_bases() -> None:
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `base` to be a loss of K outputs, but got 'Deep"):
        SparseRegularization(DeepAbstainingClassifier(warmup_epochs=1), **CIFAR100)


def test_trains_with_the_epoch_of_the_trainer(tmp_path: Path) -> None:
    seen = []

    class Watch(SparseRegularization):
        def weight(self, epoch: int) -> float:
            seen.append(epoch)
            return super().weight(epoch)

    module = make_module(Watch(nn.CrossEntropyLoss(), **CIFAR100))
    before = module.network.head.weight.detach().clone()
    make_trainer(tmp_path, max_epochs=2).fit(module, datamodule=SmallDataModule())
    assert seen == [0] * 5 + [1] * 5
    assert not torch.equal(module.network.head.weight, before)
