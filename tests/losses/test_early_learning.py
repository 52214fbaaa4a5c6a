from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    DynamicsAwareLoss,
    EarlyLearningRegularization,
    MeanAbsoluteError,
    NoiseAttentionLoss,
)

SAMPLES, CLASSES = 7, 4


class Table:
    """The least a loss can ask of a memory."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.rows = torch.zeros(SAMPLES, CLASSES, dtype=dtype)

    def get(self, index: torch.Tensor) -> torch.Tensor:
        return self.rows[index]

    def update(self, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        assert not values.requires_grad
        self.rows[index] = values.to(self.rows.dtype)
        return self.get(index)

    def lerp(self, index: torch.Tensor, values: torch.Tensor, weight: float) -> torch.Tensor:
        row = self.get(index).to(values.dtype)
        return self.update(index, row + weight * (values - row))


def make(dtype: torch.dtype = torch.float64, **arguments: object) -> EarlyLearningRegularization:
    loss = EarlyLearningRegularization(**arguments)  # type: ignore[arg-type]
    loss.stores["prediction"] = Table(dtype)
    return loss


def table_of(loss: EarlyLearningRegularization) -> Table:
    table = loss.stores["prediction"]
    assert isinstance(table, Table)
    return table


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


TARGET, INDEX = torch.tensor([0, 1, 3]), torch.tensor([6, 0, 2])
STEPS = [scale * np.random.default_rng(step).standard_normal((3, CLASSES)) for step, scale in enumerate((1, 8, 3))]


@pytest.mark.parametrize("eps", [1e-4, 0.05])
def test_two_epochs_against_numpy(eps: float) -> None:
    loss, table = make(lam=3.0, momentum=0.7, eps=eps, reduction="none"), np.zeros((SAMPLES, CLASSES))
    for logits in STEPS:
        actual = loss(torch.tensor(logits), TARGET, index=INDEX)
        clipped = np.clip(softmax(logits), eps, 1 - eps)
        table[INDEX] = 0.7 * table[INDEX] + 0.3 * clipped / clipped.sum(1, keepdims=True)
        entropy = -np.log(softmax(logits)[np.arange(3), TARGET])
        expected = entropy + 3.0 * np.log(1 - (table[INDEX] * clipped).sum(1))
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)
        np.testing.assert_allclose(table_of(loss).rows.numpy(), table, rtol=1e-10)


def test_gradient_takes_the_average_as_a_constant() -> None:
    """momentum=0: the average is the prediction itself, and a gradient through it would show."""
    loss, logits = make(lam=3.0, momentum=0.0, reduction="sum"), torch.tensor(STEPS[0], requires_grad=True)
    loss(logits, TARGET, index=INDEX).backward()
    p = softmax(STEPS[0])
    by_p = -3.0 * p / (1 - (p * p).sum(1, keepdims=True))
    expected = p - np.eye(CLASSES)[TARGET] + p * (by_p - (p * by_p).sum(1, keepdims=True))
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-10)


def test_soft_targets_enter_the_cross_entropy() -> None:
    logits, target = torch.tensor(STEPS[0]), torch.tensor(softmax(STEPS[2]))
    soft = make(reduction="none")(logits, target, index=INDEX)
    hard = make(reduction="none")(logits, TARGET, index=INDEX)
    log_p = np.log(softmax(STEPS[0]))
    expected = log_p[np.arange(3), TARGET] - (target.numpy() * log_p).sum(1)
    np.testing.assert_allclose((soft - hard).numpy(), expected, rtol=1e-10)


def test_evaluation_reads_without_writing() -> None:
    loss, logits = make(), torch.tensor(STEPS[0])
    loss(logits, TARGET, index=INDEX)
    before = table_of(loss).rows.clone()
    p = softmax(STEPS[1]).clip(1e-4, 1 - 1e-4)
    agreement = (before[INDEX].numpy() * p).sum(1)
    expected = np.log(1 - agreement) * 3.0 - np.log(softmax(STEPS[1])[np.arange(3), TARGET])
    actual = loss.eval()(torch.tensor(STEPS[1]), TARGET, index=INDEX)
    np.testing.assert_allclose(actual.item(), expected.mean(), rtol=1e-10)
    assert torch.equal(table_of(loss).rows, before)


def test_float16_memory() -> None:
    value = make(torch.float16)(torch.tensor(STEPS[0]), TARGET, index=INDEX)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, make()(torch.tensor(STEPS[0]), TARGET, index=INDEX), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_base_takes_the_place_of_cross_entropy(reduction: str) -> None:
    logits, q = torch.tensor(STEPS[0]), 0.7
    loss = make(lam=3.0, momentum=0.7, base=DynamicsAwareLoss(q, reduction=reduction), reduction=reduction)
    p = softmax(STEPS[0])
    clipped = np.clip(p, 1e-4, 1 - 1e-4)
    table = 0.3 * clipped / clipped.sum(1, keepdims=True)
    each = (1 - p[np.arange(3), TARGET] ** q) / q + 3.0 * np.log(1 - (table * clipped).sum(1))
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(loss(logits, TARGET, index=INDEX).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(table_of(loss).rows[INDEX].numpy(), table, rtol=1e-10)


def test_cross_entropy_as_the_base_changes_nothing() -> None:
    logits = torch.tensor(STEPS[0])
    expected = make()(logits, TARGET, index=INDEX)
    torch.testing.assert_close(make(base=nn.CrossEntropyLoss())(logits, TARGET, index=INDEX), expected)
    torch.testing.assert_close(make(base=DynamicsAwareLoss(0.0))(logits, TARGET, index=INDEX), expected)


def test_base_with_needs_of_its_own() -> None:
    loss = make(base=EarlyLearningRegularization(momentum=0.0))
    assert loss.requires == ("index",)
    assert loss.store_shapes(10) == {"prediction": (10,), "base.prediction": (10,)}
    loss.stores["base.prediction"] = table = Table()
    loss(torch.tensor(STEPS[0]), TARGET, index=INDEX)
    np.testing.assert_allclose(table_of(loss).rows[INDEX].numpy(), 0.3 * table.rows[INDEX].numpy(), rtol=1e-10)
    features = EarlyLearningRegularization(base=NoiseAttentionLoss())
    assert features.requires == ("index", "features")
    features.bind(5, CLASSES)
    assert sorted(features.state_dict()) == ["base.branch.bias", "base.branch.weight"]


def test_base_decides_on_soft_targets() -> None:
    hard = make(base=MeanAbsoluteError())
    assert not hard.soft_targets
    with pytest.raises(NoisyLabelError, match=r"^EarlyLearningRegularization expects int64 labels \(B,\) for its"):
        hard(torch.tensor(STEPS[0]), torch.tensor(softmax(STEPS[2])), index=INDEX)
    assert not table_of(hard).rows.any()


def test_defaults_and_declarations() -> None:
    loss = EarlyLearningRegularization()
    assert (loss.lam, loss.momentum, loss.eps, loss.reduction) == (3.0, 0.7, 1e-4, "mean")
    assert loss.requires == ("index",)
    assert loss.soft_targets
    assert loss.store_shapes(10) == {"prediction": (10,)}
    assert loss.stores == {}
    assert loss.base is None


def test_copy_and_state() -> None:
    loss, logits = make(), torch.tensor(STEPS[0])
    loss(logits, TARGET, index=INDEX)
    twin = copy.deepcopy(loss)
    before = table_of(loss).rows.clone()
    assert torch.equal(twin(logits, TARGET, index=INDEX), copy.deepcopy(loss)(logits, TARGET, index=INDEX))
    assert torch.equal(table_of(loss).rows, before)
    assert loss.state_dict() == {}
    loss.load_state_dict({}, strict=True)


def test_call_in_validation() -> None:
    with pytest.raises(
        NoisyLabelError, match=r"but got None: in validation and test call another criterion, such as `F"
    ):
        make().eval()(torch.tensor(STEPS[0]), TARGET)


def test_call_without_index() -> None:
    with pytest.raises(NoisyLabelError) as caught:
        make()(torch.tensor(STEPS[0]), TARGET)
    assert str(caught.value) == (
        "EarlyLearningRegularization expects `index`, the positions (B,) of the samples in the training set, but got "
        "None: pass `index=...`, add the callback `LossMemory()`, or use it in a NoisyLabelModule."
    )


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("lam", "a finite float >= 0", (-0.1, math.nan, math.inf)),
        ("momentum", "a float in [0, 1)", (-0.1, 1.0, math.nan)),
        ("eps", "a float in (0, 0.5)", (0.0, 0.5, math.nan)),
        ("reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            EarlyLearningRegularization(**{name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."
