from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from lightning_noisy.functional import losses as F
from tests.functional.losses.oracle import (
    Array,
    Batch,
    assert_equal,
    batches,
    close,
    inside,
    moderate,
    numpy_softmax,
    oracle_gce,
    quick,
    through_softmax,
)


class Views:
    """Logits of several views of a batch."""

    def __init__(self, batch: Batch, num_views: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        noise = draw.choice([0.0, 1.0]) * draw.standard_normal((num_views, *batch.logits.shape))
        self.batch = batch
        self.logits = batch.logits + np.abs(batch.logits).mean() * noise


views = st.builds(Views, batches, st.integers(1, 3), st.integers(0, 2**32 - 1))
pis = st.sampled_from([0.01, 0.1, 0.5, 0.9, 0.99])


def oracle_gjs(
    logits: Array, target: Array, pi: float, scaled: bool, eps: float, weights: Sequence[float]
) -> tuple[Array, Array]:
    """Values, and gradients by the logits of each view (V, B, K)."""
    predictions = np.stack([numpy_softmax(view) for view in logits])
    parts, factors = [target, *predictions], list(weights)
    mean = sum(w * part for w, part in zip(factors, parts, strict=True))
    log_mean = np.log(np.clip(mean, eps, 1))
    scale = -1 / ((1 - pi) * np.log(1 - pi)) if scaled else 1.0
    values, gradients = np.zeros(len(target)), []
    for w, part in zip(factors, parts, strict=True):
        values += w * np.where(part > 0, part * (np.log(np.maximum(part, eps)) - log_mean), 0.0).sum(1)
    for w, part in zip(factors[1:], predictions, strict=True):
        slope = np.log(np.maximum(part, eps)) - log_mean + (part >= eps) - inside(mean, eps, 1 + 1e-12)
        gradients.append(scale * through_softmax(part, w * slope))
    return scale * values, np.stack(gradients)


def value_and_gradients(function: Callable[[list[Tensor]], Tensor], logits: Array) -> tuple[Array, Array]:
    leaves = [torch.tensor(view, requires_grad=True) for view in logits]
    losses = function(leaves)
    assert losses.shape == (logits.shape[1],)
    assert losses.dtype == torch.float64
    losses.sum().backward()
    gradients = []
    for leaf in leaves:
        assert leaf.grad is not None
        gradients.append(leaf.grad.numpy())
    return losses.detach().numpy(), np.stack(gradients)


class TestGeneralizedJensenShannon:
    @given(views, pis, st.booleans(), st.sampled_from([1e-7, 1e-6, 1e-2]), st.sampled_from(["one_hot", "soft"]))
    @quick
    def test_oracle(self, views: Views, pi: float, scaled: bool, eps: float, kind: str) -> None:
        target, count = getattr(views.batch, kind), len(views.logits)
        given_target = torch.tensor(target if kind == "soft" else views.batch.labels)
        actual = value_and_gradients(
            lambda zs: F.generalized_jensen_shannon(zs, given_target, pi, scaled, eps), views.logits
        )
        weights = [pi] + [(1 - pi) / count] * count
        assert_equal(actual, oracle_gjs(views.logits, target, pi, scaled, eps, weights))

    @pytest.mark.parametrize("scaled", [True, False])
    def test_label_predicted_by_all_costs_nothing(self, scaled: bool) -> None:
        certain = np.array([[[1e4, -1e4, 0.0]]] * 2)
        values, gradients = value_and_gradients(
            lambda zs: F.generalized_jensen_shannon(zs, torch.tensor([0]), 0.3, scaled), certain
        )
        np.testing.assert_allclose(values, 0.0, atol=1e-6)
        assert not gradients.any()

    @pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
    def test_another_label_costs_the_entropy_of_the_weights(self, pi: float) -> None:
        value = F.generalized_jensen_shannon([torch.tensor([[-1e4, 1e4]]).double()], torch.tensor([0]), pi, False)
        assert value.item() == pytest.approx(-pi * np.log(pi) - (1 - pi) * np.log(1 - pi), abs=1e-6)

    def test_small_weights_lead_to_cross_entropy(self) -> None:
        batch = moderate()
        labels = torch.tensor(batch.labels)
        gaps = [
            np.abs(
                F.generalized_jensen_shannon([torch.tensor(batch.logits)], labels, pi).numpy()
                - oracle_gce(batch.logits, batch.labels, 0.0, 0.0)[0]
            ).max()
            for pi in (0.1, 0.01, 0.001)
        ]
        assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
        assert gaps[2] < 0.02

    def test_large_weights_lead_to_mean_absolute_error(self) -> None:
        """At a pace of 1 / log(1 - pi), so that pi = 0.999 is not near it; against decimals."""
        getcontext().prec = 40
        p, pi = Decimal("0.3"), Decimal("0.999")
        mean = pi + (1 - pi) * p
        divergence = -pi * mean.ln() + (1 - pi) * (p * (p / mean).ln() - (1 - p) * (1 - pi).ln())
        expected = float(-divergence / ((1 - pi) * (1 - pi).ln()))
        logits = torch.tensor([[0.3, 0.7]], dtype=torch.float64).log()
        actual = F.generalized_jensen_shannon([logits], torch.tensor([0]), 1.0).item()
        assert actual == pytest.approx(expected, rel=1e-9)
        assert abs(actual - 0.7) < 1 / np.log(1000)

    @pytest.mark.parametrize(("outside", "inner"), [(0.0, 0.001), (1e-5, 0.001), (1.0, 0.999), (0.9999, 0.999)])
    def test_weight_is_clamped(self, outside: float, inner: float) -> None:
        batch = moderate()
        zs, labels = [torch.tensor(batch.logits)] * 2, torch.tensor(batch.labels)
        for function in (
            lambda pi: F.generalized_jensen_shannon(zs, labels, pi),
            lambda pi: F.view_consistency(zs, pi),
        ):
            assert torch.equal(function(outside), function(inner))

    @pytest.mark.parametrize("pi", [0.0, 0.01, 0.5, 0.99, 1.0])
    def test_float32_keeps_three_digits_even_at_the_ends(self, pi: float) -> None:
        batch = moderate(size=50)
        labels = torch.tensor(batch.labels)
        exact = F.generalized_jensen_shannon([torch.tensor(batch.logits)], labels, pi)
        single = F.generalized_jensen_shannon([torch.tensor(batch.logits).float()], labels, pi)
        torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-3)

    def test_gradcheck(self) -> None:
        batch, other = moderate(), moderate(seed=1)
        leaves = tuple(torch.tensor(b.logits, requires_grad=True) for b in (batch, other))
        for target in (torch.tensor(batch.labels), torch.tensor(batch.soft)):
            assert gradcheck(lambda *zs, target=target: F.generalized_jensen_shannon(zs, target, 0.3), leaves)


class TestViewConsistency:
    @given(views, pis, st.booleans(), st.sampled_from([1e-7, 1e-2]))
    @quick
    def test_oracle(self, views: Views, pi: float, scaled: bool, eps: float) -> None:
        count = len(views.logits)
        actual = value_and_gradients(lambda zs: F.view_consistency(zs, pi, scaled, eps), views.logits)
        weights = [0.0] + [1 / count] * count
        values, gradients = oracle_gjs(views.logits, views.batch.one_hot, pi, scaled, eps, weights)
        assert_equal(actual, ((1 - pi) * values, (1 - pi) * gradients))

    @given(views, pis, st.booleans())
    @quick
    def test_is_what_jensen_shannon_of_the_mean_leaves(self, views: Views, pi: float, scaled: bool) -> None:
        labels, tiny = torch.tensor(views.batch.labels), 1e-300

        def parts(zs: list[Tensor]) -> Tensor:
            of_mean = F.generalized_jensen_shannon([F.log_mean_prediction(zs)], labels, pi, scaled, tiny)
            return of_mean + F.view_consistency(zs, pi, scaled, tiny)

        whole = value_and_gradients(lambda zs: F.generalized_jensen_shannon(zs, labels, pi, scaled, tiny), views.logits)
        assert_equal(value_and_gradients(parts, views.logits), whole)


@given(views)
@quick
def test_log_mean_prediction(views: Views) -> None:
    zs = [torch.tensor(view) for view in views.logits]
    mean = np.mean([numpy_softmax(view) for view in views.logits], axis=0)
    np.testing.assert_allclose(F.log_mean_prediction(zs).exp().numpy(), mean, **close)
    np.testing.assert_allclose(F.log_mean_prediction(zs).softmax(dim=1).numpy(), mean, **close)
