from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import DynamicsAwareLoss


def batch_of(size: int, num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    return torch.tensor(2 * draw.standard_normal((size, num_classes))), torch.tensor(
        draw.integers(num_classes, size=size)
    )


def terms(logits: torch.Tensor, target: torch.Tensor, q: float) -> tuple[np.ndarray, np.ndarray]:
    """Per sample: generalized cross entropy, and entropy over q ln K."""
    weights = np.exp(logits.numpy())
    probability = weights / weights.sum(1, keepdims=True)
    label_probability = probability[np.arange(len(target)), target.numpy()]
    entropy = -(probability * np.log(probability + 1e-6)).sum(1)
    return (1 - label_probability**q) / q, entropy / (q * np.log(logits.shape[1]))


@given(st.integers(1, 8), st.integers(2, 20), st.floats(0.1, 1.5), st.floats(0.0, 1.0), st.integers(0, 1000))
@settings(max_examples=60)
def test_mean_is_sum_of_means(size: int, num_classes: int, q: float, lam: float, seed: int) -> None:
    logits, target = batch_of(size, num_classes, seed)
    fit, entropy = terms(logits, target, q)
    actual = DynamicsAwareLoss(q, lam)(logits, target).item()
    np.testing.assert_allclose(actual, fit.mean() + lam * entropy.mean(), rtol=1e-10)


def test_reductions() -> None:
    batch = batch_of(5, 3)
    fit, entropy = terms(*batch, 1.2)
    expected = fit + 0.5 * entropy
    for reduction, value in (("mean", expected.mean()), ("sum", expected.sum()), ("none", expected)):
        actual = DynamicsAwareLoss(1.2, 0.5, reduction=reduction)(*batch)
        np.testing.assert_allclose(actual.numpy(), value, rtol=1e-10)


def test_defaults() -> None:
    loss = DynamicsAwareLoss(0.8)
    assert (loss.q, loss.lam, loss.eps, loss.reduction) == (0.8, 0.0, 1e-6, "mean")
    assert loss.requires == ()
    assert loss.soft_targets


def test_floor_is_the_argument() -> None:
    logits, target = torch.tensor([[-100.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    assert DynamicsAwareLoss(1.0, eps=0.01)(logits, target).item() == pytest.approx(0.99)
    entropy = -math.log(1.01) / math.log(2)
    assert DynamicsAwareLoss(1.0, 1.0, eps=0.01)(logits, target).item() == pytest.approx(0.99 + entropy)


def test_schedule_sets_plain_attributes() -> None:
    logits, target = batch_of(5, 3)
    loss = DynamicsAwareLoss(0.0)
    torch.testing.assert_close(loss(logits, target), torch.nn.functional.cross_entropy(logits, target))
    for q, lam in ((0.83, 0.0), (1.4, 0.9), (0.6, 0.0)):
        loss.lam = lam
        loss.q = q
        fit, entropy = terms(logits, target, q)
        np.testing.assert_allclose(loss(logits, target).item(), (fit + lam * entropy).mean(), rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": -1.0}, "Expected argument `q` to be a finite float >= 0, but got -1.0."),
        ({"q": math.nan}, "Expected argument `q` to be a finite float >= 0, but got nan."),
        ({"q": math.inf}, "Expected argument `q` to be a finite float >= 0, but got inf."),
        ({"q": 1.0, "lam": -0.1}, "Expected argument `lam` to be a finite float >= 0, but got -0.1."),
        ({"q": 1.0, "lam": math.nan}, "Expected argument `lam` to be a finite float >= 0, but got nan."),
        ({"q": 1.0, "lam": math.inf}, "Expected argument `lam` to be a finite float >= 0, but got inf."),
        ({"q": 1.0, "eps": 1.0}, "Expected argument `eps` to be a float in [0, 1), but got 1.0."),
        ({"q": 1.0, "eps": -0.1}, "Expected argument `eps` to be a float in [0, 1), but got -0.1."),
        ({"q": 1.0, "eps": math.nan}, "Expected argument `eps` to be a float in [0, 1), but got nan."),
        (
            {"q": 0.0, "lam": 0.5},
            "Expected argument `lam` to be 0 while `q` is 0, since bootstrapping is divided by `q`, but got 0.5: raise "
            "`q` or keep `lam` at 0.",
        ),
        ({"q": 1.0, "reduction": ""}, "Expected argument `reduction` to be 'mean', 'sum' or 'none', but got ''."),
    ],
)
def test_refused_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        DynamicsAwareLoss(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("q", "lam", "name"), [(0.0, 0.5, "lam"), (math.nan, 0.0, "q"), (-1.0, 0.0, "q"), (1.0, -1.0, "lam")]
)
def test_values_that_a_schedule_may_not_leave(q: float, lam: float, name: str) -> None:
    loss = DynamicsAwareLoss(1.0)
    loss.q, loss.lam = q, lam
    with pytest.raises(NoisyLabelError, match=f"^Expected argument `{name}` to be .*$"):
        loss(*batch_of(5, 3))


def test_soft_target_is_the_mean_over_the_label() -> None:
    logits, _ = batch_of(5, 3)
    target = logits.flip(1).softmax(1)
    by_class = [DynamicsAwareLoss(1.2, 0.5, reduction="none")(logits, torch.full((5,), k)) for k in range(3)]
    expected = sum(target[:, k] * loss for k, loss in enumerate(by_class))
    torch.testing.assert_close(
        DynamicsAwareLoss(1.2, 0.5, reduction="none")(logits, target), expected, rtol=1e-10, atol=0
    )
