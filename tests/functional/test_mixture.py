"""Mixtures against textbook formulas in float64 numpy, and at their degenerate inputs."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional.mixture import beta_mixture, gaussian_mixture, normalized

RNG = np.random.default_rng(0)
LOSSES = np.concatenate([RNG.gamma(2.0, 0.1, 700), RNG.gamma(9.0, 0.3, 300)])
WRONG = np.arange(1000) >= 700


def normal(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def test_normalized_to_the_unit_interval():
    scaled = normalized(torch.tensor([3.0, -1.0, 1.0]))
    assert scaled.tolist() == [1.0, 0.0, 0.5]
    assert normalized(torch.full((4,), 7.0)).tolist() == [0.0] * 4


@pytest.mark.parametrize("higher_is_clean", [False, True])
def test_posteriors_are_those_of_the_fitted_components_on_the_asked_side(higher_is_clean):
    fit = gaussian_mixture(torch.tensor(LOSSES), 0, higher_is_clean)
    shares = [
        w * normal(LOSSES, m, v)
        for w, m, v in zip(fit.weights.numpy(), fit.means.numpy(), fit.variances.numpy(), strict=True)
    ]
    np.testing.assert_allclose(fit.clean, shares[0] / (shares[0] + shares[1]), atol=1e-9)
    np.testing.assert_allclose(fit.densities(torch.tensor(LOSSES)), shares, rtol=1e-9)
    assert (fit.means[0] > fit.means[1]) == higher_is_clean
    assert ((fit.clean > 0.5).numpy() == (WRONG if higher_is_clean else ~WRONG)).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({}, {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}),
        ({"max_iter": 100, "tol": 1e-6, "reg_covar": 1e-6}, {"max_iter": 100, "tol": 1e-6}),
    ],
    ids=["DivideMix", "FINE"],
)
def test_settings_are_the_published_ones_and_silent(options, published):
    """Overlapping components, on which the settings matter."""
    values = np.concatenate([RNG.normal(0.3, 0.1, 500), RNG.normal(0.5, 0.2, 500)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = gaussian_mixture(torch.tensor(values), 3, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = GaussianMixture(2, random_state=3, **published).fit(values[:, None])
    lower = expected.means_[:, 0].argmin()
    np.testing.assert_allclose(fit.clean, expected.predict_proba(values[:, None])[:, lower], atol=1e-12)
    np.testing.assert_allclose(fit.variances[0], expected.covariances_[lower, 0, 0])


def test_float32_and_order_of_samples_do_not_matter():
    order = torch.from_numpy(RNG.permutation(1000))
    fit, other = (gaussian_mixture(v, 2**40 + 1) for v in (torch.tensor(LOSSES), torch.tensor(LOSSES).float()[order]))
    torch.testing.assert_close(other.clean, fit.clean[order], atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_losses_are_all_clean(count):
    fit = gaussian_mixture(torch.full((count,), 0.7), 0)
    assert fit.clean.tolist() == [1.0] * count
    assert fit.weights.tolist() == [1.0, 0.0]
    assert fit.densities(torch.tensor([0.7]))[:, 0].tolist() == pytest.approx([normal(0, 0, 5e-4), 0])
    beta = beta_mixture(torch.full((count,), 0.7))
    assert beta.clean(torch.tensor([0.0, 0.7, 9.0])).tolist() == [1.0] * 3


@pytest.mark.parametrize("others", [[5.0], [3.0, 4.0, 5.0, 6.0, 7.0]])
def test_losses_that_are_equal_between_the_percentiles_are_all_clean(others):
    count = 19 * len(others)  # the percentiles differ, but nothing else lies between them
    fit = beta_mixture(torch.tensor([0.7] * count + others))
    assert fit.bounds[1] > fit.bounds[0] == pytest.approx(0.7)
    assert fit.weights.tolist() == [1.0, 0.0]
    assert fit.clean(torch.tensor([0.0, 0.7, 9.0])).tolist() == [1.0] * 3


def test_two_values_are_told_apart():
    assert gaussian_mixture(torch.tensor([0.0, 1.0]), 0).clean.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    beta = beta_mixture(torch.tensor([0.0] * 10 + [1.0] * 10))
    assert beta.clean(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("fit", [normalized, beta_mixture, lambda values: gaussian_mixture(values, 0)])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"^A mixture is fitted to values \(N,\) with N >= 1, but got shape \(0,\)\.$"),
        ([0.0, float("nan"), 1.0, float("inf")], r"finite values, but 2 of 4 are not, the first at position 1: nan\."),
        ([-float("inf")], r"1 of 1 are not, the first at position 0: -inf\."),
    ],
)
def test_refused_values(fit, values, message):
    with pytest.raises(NoisyLabelError, match=message):
        fit(torch.tensor(values))


def beta_pdf(x, a, b):
    return math.gamma(a + b) / math.gamma(a) / math.gamma(b) * x ** (a - 1) * (1 - x) ** (b - 1)


def reference_beta(losses):
    """The algorithm, step by step."""
    low, high = np.percentile(losses, 5), np.percentile(losses, 95)
    x = losses[(losses >= low) & (losses <= high)]
    x = np.clip((x - low) / (high - low), 1e-3, 1 - 1e-3)
    a, b, weights = [1.0, 2.0], [2.0, 1.0], [0.5, 0.5]
    for _ in range(10):
        joint = [weights[k] * beta_pdf(x, a[k], b[k]) for k in (0, 1)]
        total = joint[0] + joint[1]
        for k in (0, 1):
            share = np.maximum(joint[k] / total, 1e-12)
            mean = (share * x).sum() / share.sum()
            variance = (share * (x - mean) ** 2).sum() / share.sum()
            a[k] = mean * (mean * (1 - mean) / variance - 1)
            b[k] = a[k] * (1 - mean) / mean
            weights[k] = share.sum()
        weights = [weight / sum(weights) for weight in weights]
    return low, high, np.array(a), np.array(b), np.array(weights)


def test_beta_mixture_by_hand():
    losses = np.clip(LOSSES, 0, 6)
    fit = beta_mixture(torch.tensor(losses))
    low, high, a, b, weights = reference_beta(losses)
    assert fit.bounds == pytest.approx((low, high))
    for own, expected in ((fit.a, a), (fit.b, b), (fit.weights, weights)):
        np.testing.assert_allclose(own, expected, rtol=1e-8)
    points = np.array([0.1, 0.4, 0.9])
    expected = [weights[k] * beta_pdf(points, a[k], b[k]) for k in (0, 1)]
    np.testing.assert_allclose(fit.densities(torch.tensor(points)), expected, rtol=1e-8)

    centres = np.linspace(1e-12, 1 - 1e-12, 100)
    clean, wrong = (weights[k] * beta_pdf(centres, a[k], b[k]) for k in (0, 1))
    table = wrong / (clean + wrong)
    table[table.argmax() :] = table.max()
    np.testing.assert_allclose(fit.table, table, atol=1e-9)
    at = torch.tensor([low - 5, low, low + 0.255 * (high - low), high, high + 5], dtype=torch.float64)
    np.testing.assert_allclose(1 - fit.clean(at), table[[0, 0, 25, 99, 99]], atol=1e-9)


def test_the_table_does_not_fall_again():
    """Wrong labels in a narrow heap: beyond it the broad component of clean ones is the likelier."""
    losses = np.concatenate([RNG.beta(1.2, 1.4, 600), RNG.normal(0.7, 0.01, 600)])
    table = beta_mixture(torch.tensor(losses)).table
    assert table.argmax() < 99
    assert (table[int(table.argmax()) :] == table.max()).all()


def test_outliers_are_no_part_of_the_beta_fit():
    losses = np.concatenate([np.clip(LOSSES, 0, 6), [1e6] * 10, [-1e6] * 10])
    fit = beta_mixture(torch.tensor(losses))
    assert fit.bounds[1] - fit.bounds[0] < 6
    assert fit.clean(torch.tensor([-1e6, 1e6], dtype=torch.float64))[0] > 0.9
    assert ((fit.clean(torch.tensor(LOSSES)) > 0.5).numpy() == ~WRONG).mean() > 0.9


def test_wrong_labels_have_the_higher_mean_also_where_that_component_began_as_the_lower():
    losses = np.array([0.0, 0.0, 0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.6, 0.7])
    *_, a, b, weights = reference_beta(losses)
    assert a[0] / (a[0] + b[0]) > a[1] / (a[1] + b[1]) + 0.05
    fit = beta_mixture(torch.tensor(losses))
    np.testing.assert_allclose(torch.stack([fit.a, fit.b, fit.weights]), [a[::-1], b[::-1], weights[::-1]], rtol=1e-6)
    assert fit.table[-1] > fit.table[0]
