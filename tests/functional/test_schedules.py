import math

import pytest

from lightning_noisy.functional.schedules import bootstrapping_weight, linear, linear_rampup, sigmoid_rampup

PUBLISHED = [  # q_start, epochs, moment of q = 1, first epoch with bootstrapping, last q and lam
    (0.8, 150, 42.857, 43, 1.49533, 0.99067),
    (0.6, 150, 66.667, 67, 1.494, 0.988),
    (0.4, 250, 136.364, 137, 1.4956, 0.9912),
]


@pytest.mark.parametrize(("q_start", "epochs", "moment", "first", "last_q", "last_lam"), PUBLISHED)
def test_published_table(q_start, epochs, moment, first, last_q, last_lam):
    weights = [bootstrapping_weight(q_start, 1.5, 1.0, i, epochs) for i in range(epochs)]
    assert next(i for i, weight in enumerate(weights) if weight > 0) == first
    assert linear(q_start, 1.5, moment, epochs) == pytest.approx(1.0, abs=1e-5)
    assert linear(q_start, 1.5, epochs - 1, epochs) == pytest.approx(last_q, abs=1e-5)
    assert weights[-1] == pytest.approx(last_lam, abs=1e-5)


def test_first_and_final_value():
    assert linear(0.2, 0.9, 0, 7) == 0.2
    assert linear(0.2, 0.9, 7, 7) == pytest.approx(0.9)


@pytest.mark.parametrize(("q_start", "q_end"), [(0.0, 1.0), (0.5, 0.9), (1.0, 1.0), (0.3, 0.3)])
def test_no_bootstrapping_unless_q_passes_one(q_start, q_end):
    assert {bootstrapping_weight(q_start, q_end, 1.0, i, 10) for i in range(11)} == {0.0}


def test_constant_q_beyond_one_bootstraps_fully():
    assert bootstrapping_weight(1.2, 1.2, 0.5, 0, 10) == 0.5


def test_weight_scales_with_its_end():
    assert bootstrapping_weight(0.8, 1.5, 3.0, 120, 150) == pytest.approx(
        3 * bootstrapping_weight(0.8, 1.5, 1, 120, 150)
    )


def test_ramps():
    assert [linear_rampup(t, 16) for t in (-1, 0, 4, 16, 20)] == [0, 0, 0.25, 1, 1]
    expected = [math.exp(-5), math.exp(-5), math.exp(-5 * 0.75**2), 1, 1]
    assert [sigmoid_rampup(t, 16) for t in (-1, 0, 4, 16, 20)] == pytest.approx(expected)
    assert linear_rampup(0, 0) == sigmoid_rampup(-3, 0) == 1
