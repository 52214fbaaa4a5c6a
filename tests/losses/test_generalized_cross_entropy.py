from __future__ import annotations

import math

import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import GeneralizedCrossEntropy, NoisyLabelLoss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])


def naive(logits: torch.Tensor, target: torch.Tensor, q: float) -> torch.Tensor:
    return (1 - logits.softmax(1)[torch.arange(len(target)), target] ** q) / q


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_formula_and_reduction(batch: tuple[torch.Tensor, torch.Tensor], reduction: str) -> None:
    expected = naive(*batch, 0.3)
    expected = getattr(expected, reduction)() if reduction != "none" else expected
    torch.testing.assert_close(GeneralizedCrossEntropy(0.3, reduction=reduction)(*batch), expected)


def test_defaults(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = GeneralizedCrossEntropy()
    assert (loss.q, loss.eps, loss.reduction) == (0.7, 1e-7, "mean")
    assert isinstance(loss, NoisyLabelLoss)
    assert loss.requires == ()
    assert loss.soft_targets
    assert loss.store_shapes(4) == {}
    torch.testing.assert_close(loss(*batch), naive(*batch, 0.7).mean())


def test_floor_is_the_argument() -> None:
    logits, target = torch.tensor([[-100.0, 0.0]]), torch.tensor([0])
    assert GeneralizedCrossEntropy(0.0, eps=1e-3)(logits, target).item() == pytest.approx(-math.log(1e-3))
    assert GeneralizedCrossEntropy(0.0, eps=0.0)(logits, target).item() == pytest.approx(100.0)


def test_exponent_can_be_scheduled(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = GeneralizedCrossEntropy(0.5)
    loss.q = 0.9
    torch.testing.assert_close(loss(*batch), naive(*batch, 0.9).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": -0.1}, "Expected argument `q` to be a finite float >= 0, but got -0.1."),
        ({"q": math.nan}, "Expected argument `q` to be a finite float >= 0, but got nan."),
        ({"q": math.inf}, "Expected argument `q` to be a finite float >= 0, but got inf."),
        ({"eps": -1e-7}, "Expected argument `eps` to be a float in [0, 1), but got -1e-07."),
        ({"eps": 1.0}, "Expected argument `eps` to be a float in [0, 1), but got 1.0."),
        ({"eps": math.nan}, "Expected argument `eps` to be a float in [0, 1), but got nan."),
        ({"reduction": "max"}, "Expected argument `reduction` to be 'mean', 'sum' or 'none', but got 'max'."),
    ],
)
def test_refused_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        GeneralizedCrossEntropy(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_soft_target_is_the_mean_over_the_label(batch: tuple[torch.Tensor, torch.Tensor], q: float) -> None:
    logits, _ = batch
    target, loss = logits.flip(1).softmax(1), GeneralizedCrossEntropy(q, reduction="none")
    expected = sum(target[:, k] * loss(logits, torch.full((len(logits),), k)) for k in range(logits.shape[1]))
    torch.testing.assert_close(loss(logits, target), expected, rtol=1e-10, atol=0)
