"""Selections by hand, and against brute force in Python."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.selection import (
    agree,
    class_thresholds,
    confidence_weights,
    disagree,
    forget_rate,
    keep_count,
    small_loss,
    small_loss_by_class,
    two_view_groups,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("exponent", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("ramp", [1, 2, 10])
def test_the_ramp_is_that_of_the_official_code(ramp: int, exponent: float) -> None:
    """Its schedule, written as there: ``schedule[:T_k] = np.linspace(0, r ** c, T_k)``."""
    schedule = np.full(ramp + 3, 0.45)
    schedule[:ramp] = np.linspace(0, 0.45**exponent, ramp)
    rates = [forget_rate(epoch, 0.45, ramp, exponent) for epoch in range(ramp + 3)]
    np.testing.assert_allclose(rates, schedule, rtol=1e-12)
    assert rates[0] == 0
    assert rates[ramp] == 0.45


@pytest.mark.parametrize(
    ("forget", "count", "kept"),
    [(0.9, 10, 1), (0.8, 10, 2), (0.7, 10, 3), (0.2, 128, 102), (0.0, 7, 7), (1.0, 7, 1), (0.99, 7, 1), (0.5, 1, 1)],
)
def test_the_number_that_is_kept_is_exact_and_at_least_one(forget: float, count: int, kept: int) -> None:
    """``int((1 - 0.9) * 10)`` is 0 and ``int((1 - 0.8) * 10)`` is 1, in floats."""
    assert keep_count(forget, count) == kept


def test_it_is_exact_on_the_whole_ramp() -> None:
    for rate in ("0.2", "0.4", "0.45", "0.6", "0.8", "0.9"):
        for epoch in range(11):
            exact = Fraction(rate) * min(epoch, 9) / 9
            for count in (1, 10, 15, 36, 90, 128, 150):
                wanted = max(1, math.floor((1 - exact) * count))
                assert keep_count(forget_rate(epoch, float(rate), 10), count) == wanted, (rate, epoch, count)


@pytest.mark.parametrize("keep", [0, 1, 3, 5, 6, 9])
def test_of_equal_losses_those_that_stand_first_and_nan_last(keep: int) -> None:
    losses = torch.tensor([2.0, 1.0, NAN, 1.0, INF, 1.0])
    order = [1, 3, 5, 0, 4, 2]
    assert small_loss(losses, keep).nonzero().flatten().tolist() == sorted(order[:keep])


def test_many_equal_losses_go_by_position() -> None:
    """A sort that is not stable keeps the order of few rows by luck alone."""
    losses = torch.arange(4000) % 2.0
    assert torch.equal(small_loss(losses, 1000).nonzero().flatten(), torch.arange(0, 2000, 2))
    chosen = small_loss_by_class(losses, torch.zeros(4000, dtype=torch.int64), 1000, 1)
    assert torch.equal(chosen.nonzero().flatten(), torch.arange(0, 2000, 2))


def test_what_is_not_chosen_by_count_is_refused_and_gradients_stay_out() -> None:
    with pytest.raises(NoisyLabelError, match="`keep` to be an int >= 0"):
        small_loss(torch.zeros(3), -1)
    assert not small_loss(torch.zeros(3, requires_grad=True), 2).requires_grad


@pytest.mark.parametrize("keep", [2, torch.tensor([0, 2, 5, 3])])
def test_by_class_it_is_the_same_in_each(keep: Tensor | int) -> None:
    generator = np.random.default_rng(0)
    for count in (0, 1, 30):
        losses = torch.from_numpy(generator.integers(4, size=count).astype(float))
        labels = torch.from_numpy(generator.integers(3, size=count))  # no sample of the last class
        expected = set()
        for label in range(4):
            rows = sorted((losses[row].item(), row) for row in range(count) if labels[row] == label)
            expected |= {row for _, row in rows[: keep if isinstance(keep, int) else int(keep[label])]}
        chosen = small_loss_by_class(losses, labels, keep, 4)
        assert chosen.dtype == torch.bool
        assert set(chosen.nonzero().flatten().tolist()) == expected


def test_who_disagrees_and_who_agrees() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])  # a tie is the first class
    second = torch.tensor([[3.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    assert disagree(first, second).tolist() == [False, True, True]
    assert agree(first, torch.tensor([0, 0, 0])).tolist() == [True, False, True]


def test_the_groups_of_four_samples_by_hand() -> None:
    """Thresholds (0.5, 0.25), margin 0.25, label 0: sure from 0.375 + 0.25 = 0.625 on. All comparisons are strict."""
    weak = torch.tensor([[0.75, 0.25, 0], [0.5, 0.5, 0], [0.25, 0.75, 0], [0.25, 0.75, 0]])
    strong = torch.tensor([[0.5, 0.5, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0.25, 0.5, 0.25]])
    high, low = torch.full((4,), 0.5), torch.full((4,), 0.25)
    clean, hard, corrected = two_view_groups(weak, strong, torch.zeros(4, dtype=torch.int64), high, low, 0.25)
    assert clean.tolist() == [True, False, False, False]
    assert hard.tolist() == [False, True, False, False]  # 0.5 > 0.5 does not hold
    assert corrected.tolist() == [False, False, True, False]  # the mean of the last one is 0.625, which is not more


@pytest.mark.parametrize(("most", "corrected"), [(0.985, False), (0.995, True)])
def test_nobody_needs_to_be_surer_than_99_percent(most: float, corrected: bool) -> None:
    said = torch.tensor([[1 - most, most]])
    threshold = torch.tensor([0.9])
    groups = two_view_groups(said, said, torch.tensor([0]), threshold, threshold, 0.5)
    assert [bool(group) for group in groups] == [False, False, corrected]


def test_a_selected_sample_is_not_corrected_however_sure() -> None:
    said, threshold = torch.tensor([[0.3, 0.7]]), torch.tensor([0.2])
    groups = two_view_groups(said, said, torch.tensor([0]), threshold, threshold, 0.1)
    assert [bool(group) for group in groups] == [True, False, False]


def test_thresholds_of_classes_by_hand() -> None:
    levels = class_thresholds(torch.tensor(0.8), torch.tensor([0.25, 0.5, 0.0]))
    torch.testing.assert_close(levels, torch.tensor([0.4, 0.8, 0.0]))


def test_weights_fall_below_the_mean_alone() -> None:
    """n = 2, v = 0.02: a distance of 0.1 is exp(-0.01 * 4 / 0.04)."""
    confidence = torch.tensor([0.9, 0.6, 0.5, 0.3], dtype=torch.float64)
    mean, variance = torch.tensor([0.6, 0.02], dtype=torch.float64)
    weights = confidence_weights(confidence, mean, variance, 2.0)
    expected = [1.0, 1.0, math.exp(-1), math.exp(-9)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-12)


def test_confidences_that_are_all_equal_have_weight_one() -> None:
    for dtype in (torch.float32, torch.float64):
        equal = torch.full((7,), 0.1, dtype=dtype)
        variance = (equal - equal.sum() / 7).square().sum() / 6  # what rounding leaves, or 0
        for spread in (variance, torch.zeros_like(variance)):
            weights = confidence_weights(equal, equal.sum() / 7, spread, 2.0)
            torch.testing.assert_close(weights, torch.ones_like(equal))
