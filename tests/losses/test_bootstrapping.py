from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import Bootstrapping

LOGITS = torch.tensor(np.random.default_rng(0).standard_normal((4, 3)))
LABELS = torch.tensor([0, 1, 2, 0])


def expected(beta: float, mode: str, target: np.ndarray) -> np.ndarray:
    p = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum(1, keepdims=True)
    own = p if mode == "soft" else np.eye(3)[p.argmax(1)]
    return -((beta * target + (1 - beta) * own) * np.log(p)).sum(1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_formula(mode: str, reduction: str) -> None:
    each = expected(0.8, mode, np.eye(3)[LABELS])
    wanted = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(Bootstrapping(0.8, mode, reduction=reduction)(LOGITS, LABELS), wanted, rtol=1e-10)


def test_soft_targets() -> None:
    target = LOGITS.roll(1, 0).softmax(1)
    np.testing.assert_allclose(
        Bootstrapping(0.7)(LOGITS, target), expected(0.7, "soft", target.numpy()).mean(), rtol=1e-10
    )


def test_detach_is_passed_on() -> None:
    gradients = []
    for detach in (False, True):
        leaf = LOGITS.clone().requires_grad_()
        Bootstrapping(0.5, detach=detach)(leaf, LABELS).backward()
        gradients.append(leaf.grad)
    assert not torch.allclose(gradients[0], gradients[1])
    # A detached prediction as target gives no gradient at all.
    torch.testing.assert_close(gradients[1], 0.5 * (LOGITS.softmax(1) - torch.eye(3)[LABELS]) / 4)


def test_defaults() -> None:
    loss = Bootstrapping()
    assert (loss.beta, loss.mode, loss.detach, loss.reduction) == (0.95, "soft", False, "mean")
    assert loss.requires == ()
    assert loss.soft_targets
    assert loss.state_dict() == loss.store_shapes(3) == {}


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("beta", "a float in [0, 1]", (-0.1, 1.1, math.nan)),
        ("mode", "'soft' or 'hard'", ("other",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            Bootstrapping(**{name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."
