"""The ranked labels: order, flags, counts, and how good they are."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.reports import NoiseRate
from lightning_noisy.reports.quality import quality
from tests.reports.issues import four


def test_what_is_said_of_four_samples():
    issues = four()
    assert issues.order.tolist() == [1, 2, 3, 0]  # equal scores keep their order
    assert issues.rank.tolist() == [4, 1, 2, 3]
    assert issues.wrong.tolist() == [False, True, False, True]  # the cut itself counts
    assert issues.ambiguous.tolist() == [False, False, True, False]
    assert issues.flags == ["", "wrong", "ambiguous; contradicting duplicate", "wrong; contradicting duplicate"]
    assert issues.corrected.tolist() == [0, 2, 1, 0]
    assert issues.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_quality_by_hand():
    seen = quality(four(truth=[0, 2, 0, 2]))
    assert seen is not None
    # Wrong: 1 and 2. Called wrong: 1 and 3.
    assert (seen.samples, seen.noise_rate, seen.precision, seen.recall, seen.corrected) == (4, 0.5, 0.5, 0.5, 0.5)
    # Scores 0.1, 0.9, 0.9, 0.5: both wrong ones are above both right ones.
    assert (seen.auroc, seen.average_precision) == (1.0, 1.0)


def test_quality_of_those_that_are_known():
    seen = quality(four(truth=[0, -1, -1, 2]))
    assert seen is not None
    assert (seen.samples, seen.noise_rate, seen.precision, seen.recall) == (2, 0.0, 0.0, None)
    assert (seen.auroc, seen.average_precision) == (None, None)
    assert quality(four()) is None
    assert quality(four(truth=[-1] * 4)) is None


def test_corrected_labels_have_the_right_share():
    seen = quality(four(truth=[0, 2, 1, 0]))
    assert seen is not None
    assert seen.corrected == 1.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"given": np.array([0, 0, 1, 3])}, "`given` has labels outside 0 to 2"),
        ({"suggested": np.array([0, -1, 1, 2])}, "`suggested` has labels outside"),
        ({"score": np.array([0.1, 1.1, 0.5, 0.5])}, "outside \\[0, 1\\]"),
        ({"score": np.array([0.1, np.nan, 0.5, 0.5])}, "outside \\[0, 1\\]"),
        ({"columns": {"aum": np.zeros(3)}}, "`aum` has 3 rows for 4 samples"),
        ({"curves": np.zeros((3, 2))}, "`curves` has 3 rows"),
        ({"truth": np.zeros(3, np.int64)}, "`truth` has 3 rows"),
        ({"components": {"right": np.zeros(3)}}, "`right` has 3 values, not 50"),
    ],
)
def test_what_is_refused(change, says):
    with pytest.raises(NoisyLabelError, match=says):
        four(**change)


def test_a_noise_rate_lies_in_its_interval():
    with pytest.raises(NoisyLabelError, match="low <= share <= high"):
        NoiseRate(0.3, 0.4, 0.5)
