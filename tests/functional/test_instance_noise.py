import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.instance_noise import (
    instance_probabilities,
    margin_factor,
    margin_keep_probability,
    standard_normal,
    truncated_normal,
)
from lightning_noisy.functional.random import hash_uniform

UNIFORM = torch.cat([torch.tensor([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]), hash_uniform(7, torch.arange(996))]).double()


def test_standard_normal_draws():
    values = standard_normal(UNIFORM)

    assert np.allclose(values[1:].numpy(), stats.norm.ppf(UNIFORM[1:].numpy()), rtol=1e-12, atol=1e-14)
    assert -8.4 < float(values[0]) < float(values[1])
    assert stats.kstest(values[4:].numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.4, 0.95, 1.0])
@pytest.mark.parametrize("std", [0.01, 0.1, 3.0])
def test_truncated_normal_draws(mean, std):
    values = truncated_normal(UNIFORM, mean, std).numpy()
    oracle = stats.truncnorm(-mean / std, (1 - mean) / std, loc=mean, scale=std)

    assert (values >= 0).all()
    assert (values <= 1).all()
    assert np.allclose(oracle.cdf(values[1:-1]), UNIFORM[1:-1].numpy(), rtol=0, atol=1e-9)
    draws = truncated_normal(hash_uniform(1, torch.arange(20_000)), mean, std)
    assert abs(float(draws.mean()) - oracle.mean()) < 5 * oracle.std() / math.sqrt(20_000)


def test_without_spread_every_draw_is_the_mean():
    assert truncated_normal(UNIFORM, 0.3, 0.0).unique().tolist() == [0.3]


@settings(max_examples=40)
@given(st.integers(0, 4), st.integers(1, 6), st.sampled_from([1e-3, 1.0, 1e4]), st.integers(0, 99))
def test_instance_probabilities_equal_a_loop(label, rows, size, seed):
    stream = np.random.RandomState(seed)
    scores, rates = stream.randn(rows, 5) * size, stream.rand(rows)
    given_scores = torch.from_numpy(scores)

    found = instance_probabilities(given_scores, label, torch.from_numpy(rates))

    expected = np.zeros((rows, 5))
    for row in range(rows):
        others = [k for k in range(5) if k != label]
        expected[row, others] = rates[row] * special.softmax(scores[row, others])
        expected[row, label] = 1 - rates[row]
    assert np.allclose(found.numpy(), expected, rtol=1e-10, atol=1e-300)
    assert np.array_equal(given_scores.numpy(), scores)


MARGIN = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "flip"),
    [
        (1, lambda d: -(1 / 2) * d**2 + 1 / 2),
        (2, lambda d: 1 - abs(d) ** 3),
        (3, lambda d: 1 - (1 / 3) * abs(d) ** 3 - (1 / 3) * d**2 - (1 / 3) * abs(d)),
    ],
)
def test_keep_probability_is_that_of_the_paper(kind, flip):
    expected = 1 - flip(MARGIN.numpy())

    assert np.allclose(margin_keep_probability(MARGIN, kind).numpy(), expected, rtol=0, atol=1e-15)


def expected_rate(keep, first_wrong, second_wrong, factor):
    total = 0.0
    for k, first, second in zip(keep.tolist(), first_wrong.tolist(), second_wrong.tolist(), strict=True):
        kept = min(1.0, k / factor)
        total += kept * first + (1 - kept) * second
    return total / len(keep)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.11, 0.35, 0.7])
def test_the_factor_gives_the_rate(kind, rate):
    keep = margin_keep_probability(hash_uniform(0, torch.arange(2000)), kind)
    first_wrong = hash_uniform(1, torch.arange(2000)) < 0.1
    second_wrong = ~first_wrong | (hash_uniform(2, torch.arange(2000)) < 0.3)

    factor = margin_factor(keep, first_wrong, second_wrong, rate)

    assert factor > 0
    assert expected_rate(keep, first_wrong, second_wrong, factor) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_the_ends_of_the_range_can_be_reached(rate):
    keep = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    first_wrong = torch.arange(100) < 10
    factor = margin_factor(keep, first_wrong, ~first_wrong, rate)

    assert 0 < factor < math.inf
    assert expected_rate(keep, first_wrong, ~first_wrong, factor) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("rate", [0.05, 0.95])
def test_a_rate_that_no_factor_gives_is_refused(rate):
    keep, wrong = torch.ones(100, dtype=torch.float64), torch.arange(100) < 10
    match = rf"^Expected argument `rate` to lie between 0\.1000, .* and 0\.9000, .* but got {rate}: "
    with pytest.raises(NoisyLabelError, match=match) as error:
        margin_factor(keep, wrong, ~wrong, rate)
    assert "\n" not in str(error.value)
