from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy import SampleStore
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import (
    DynamicsAwareLoss,
    EarlyLearningRegularization,
    GeneralizedJensenShannonLoss,
    JensenShannonLoss,
    MeanAbsoluteError,
    NoiseAttentionLoss,
)

LABELS, INDEX = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([6, 0, 2, 5, 1, 3])


def draw(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(count)]


def softmax(logits: torch.Tensor) -> np.ndarray:
    weights = np.exp(logits.detach().numpy())
    return weights / weights.sum(1, keepdims=True)


def divergence(parts: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Jensen-Shannon divergence as an entropy less entropies."""

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(np.where(p > 0, p, 1))).sum(1)

    mean = sum(w * p for w, p in zip(weights, parts, strict=True))
    return entropy(np.asarray(mean)) - sum(w * entropy(p) for w, p in zip(weights, parts, strict=True))


def scale(pi: float) -> float:
    return -1 / ((1 - pi) * math.log(1 - pi))


def test_one_view_against_entropies() -> None:
    (logits,) = draw(1)
    each = divergence([np.eye(4)[LABELS], softmax(logits)], [0.3, 0.7])
    for scaled, factor in ((True, scale(0.3)), (False, 1.0)):
        actual = JensenShannonLoss(0.3, scaled, reduction="none")(logits, LABELS)
        np.testing.assert_allclose(actual.numpy(), factor * each, rtol=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("num_views", [2, 3])
def test_several_views_against_entropies(num_views: int, reduction: str, scaled: bool) -> None:
    views = draw(num_views)
    parts = [np.eye(4)[LABELS], *map(softmax, views)]
    each = divergence(parts, [0.4] + [0.6 / num_views] * num_views) * (scale(0.4) if scaled else 1.0)
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    loss = GeneralizedJensenShannonLoss(0.4, num_views, scaled, reduction=reduction)
    np.testing.assert_allclose(loss(views[0], LABELS, views=views).numpy(), expected, rtol=1e-9)


def test_soft_targets() -> None:
    views, target = draw(2), draw(3)[2].softmax(1)
    each = scale(0.4) * divergence([target.numpy(), *map(softmax, views)], [0.4, 0.3, 0.3])
    actual = GeneralizedJensenShannonLoss(0.4)(views[0], target, views=views)
    np.testing.assert_allclose(actual.item(), each.mean(), rtol=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_base_takes_the_place_of_what_is_about_the_label(reduction: str, scaled: bool) -> None:
    views = draw(2)
    base = DynamicsAwareLoss(0.7, eps=1e-6, reduction=reduction)
    loss = GeneralizedJensenShannonLoss(0.4, scaled=scaled, base=base, reduction=reduction)
    predictions = [softmax(view) for view in views]
    mean = sum(predictions) / 2
    fit = (1 - mean[np.arange(6), LABELS] ** 0.7) / 0.7
    each = fit + 0.6 * divergence(predictions, [0.5, 0.5]) * (scale(0.4) if scaled else 1.0)
    expected = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(loss(views[0], LABELS, views=views).numpy(), expected, rtol=1e-9)


def test_jensen_shannon_as_the_base_changes_nothing() -> None:
    views = draw(2)
    whole = GeneralizedJensenShannonLoss(0.4, eps=1e-30)
    parts = GeneralizedJensenShannonLoss(0.4, eps=1e-30, base=JensenShannonLoss(0.4, eps=1e-30))
    torch.testing.assert_close(parts(views[0], LABELS, views=views), whole(views[0], LABELS, views=views))


def test_gradient_reaches_every_view() -> None:
    for base in (None, MeanAbsoluteError()):
        views = [view.requires_grad_() for view in draw(2)]
        GeneralizedJensenShannonLoss(0.5, base=base)(views[0], LABELS, views=views).backward()
        for view in views:
            assert view.grad is not None
            assert view.grad.abs().sum() > 0


def test_weight_can_be_scheduled() -> None:
    views = draw(2)
    loss = GeneralizedJensenShannonLoss(0.4)
    loss.pi = 0.8
    expected = GeneralizedJensenShannonLoss(0.8)(views[0], LABELS, views=views)
    assert torch.equal(loss(views[0], LABELS, views=views), expected)


def test_what_the_base_requires_it_gets() -> None:
    views = draw(2)
    loss = GeneralizedJensenShannonLoss(0.4, base=EarlyLearningRegularization(momentum=0.5))
    assert loss.requires == ("views", "index")
    assert loss.store_shapes(4) == {"base.prediction": (4,)}
    loss.stores["base.prediction"] = table = SampleStore(7, (4,))
    loss(views[0], LABELS, views=views, index=INDEX)
    mean = sum(softmax(view) for view in views) / 2
    np.testing.assert_allclose(table.get(INDEX).numpy(), 0.5 * mean, rtol=1e-3)
    bound = GeneralizedJensenShannonLoss(0.4, base=NoiseAttentionLoss())
    bound.bind(5, 4)
    assert sorted(bound.state_dict()) == ["base.branch.bias", "base.branch.weight"]
    assert not GeneralizedJensenShannonLoss(0.4, base=MeanAbsoluteError()).soft_targets


def test_defaults_and_repr() -> None:
    loss = GeneralizedJensenShannonLoss(0.1)
    assert (loss.num_views, loss.scaled, loss.eps, loss.base, loss.reduction) == (2, True, 1e-7, None, "mean")
    assert loss.requires == ("views",)
    assert loss.soft_targets
    assert loss.state_dict() == loss.store_shapes(4) == {}
    assert repr(loss) == "GeneralizedJensenShannonLoss(reduction='mean', pi=0.1, num_views=2, scaled=True, eps=1e-07)"


@pytest.mark.parametrize(("count", "came"), [(1, "1"), (3, "3")])
def test_another_number_of_views(count: int, came: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        GeneralizedJensenShannonLoss(0.1)(draw(1)[0], LABELS, views=draw(count))
    assert str(caught.value) == (
        f"GeneralizedJensenShannonLoss expects the logits of 2 views, but got {came}: give batches whose images are a "
        "list of that many views, or pass `views=[...]`."
    )


def test_refused_targets_and_keywords() -> None:
    views = draw(2)
    with pytest.raises(NoisyLabelError, match=r"^GeneralizedJensenShannonLoss expects int64 labels \(B,\) or floating"):
        GeneralizedJensenShannonLoss(0.1)(views[0], LABELS.double(), views=views)
    with pytest.raises(NoisyLabelError, match=r"^GeneralizedJensenShannonLoss expects int64 labels \(B,\) for its"):
        GeneralizedJensenShannonLoss(0.1, base=MeanAbsoluteError())(views[0], views[0].softmax(1), views=views)
    with pytest.raises(NoisyLabelError, match=r"^GeneralizedJensenShannonLoss was called with `index`, but"):
        GeneralizedJensenShannonLoss(0.1)(views[0], LABELS, views=views, index=INDEX)


@pytest.mark.parametrize(
    ("name", "wanted", "values"),
    [
        ("pi", "a float in [0, 1]", (-0.1, 1.1, math.nan)),
        ("num_views", "an int of at least 2", (1, 0, 2.5, True)),
        ("eps", "a float in (0, 1)", (0.0, 1.0, math.nan)),
        ("reduction", "'mean', 'sum' or 'none'", ("all",)),
    ],
)
def test_refused_arguments(name: str, wanted: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(NoisyLabelError) as caught:
            GeneralizedJensenShannonLoss(**{"pi": 0.1, name: value})
        assert str(caught.value) == f"Expected argument `{name}` to be {wanted}, but got {value!r}."
