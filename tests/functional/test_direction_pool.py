import pytest
import torch

from lightning_noisy.functional.direction_pool import pool_increment

GIVEN, PREDICTED = torch.tensor([0, 2]), torch.tensor([1, 2])
CONFIDENCE = torch.tensor([0.4, 0.5], dtype=torch.float64)


def test_by_hand():
    """e/E = 1/4, one lambda for all: given 0.4 x 3/4, predicted 0.4 x 2/4, random 0.8/4 over four classes."""
    gain = pool_increment(GIVEN, PREDICTED, CONFIDENCE, 0.25, 2.0, 0.8, 4)
    expected = [[0.35, 0.25, 0.05, 0.05], [0.05, 0.05, 0.05 + 0.375 + 0.25, 0.05]]
    assert gain.tolist() == [pytest.approx(row) for row in expected]


def test_a_lambda_for_each_sample():
    lams = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.8, 0.0], dtype=torch.float64)
    gain = pool_increment(GIVEN, PREDICTED, CONFIDENCE, 0.25, *lams, 4)
    assert gain.tolist() == [pytest.approx([0.35, 0.25, 0.05, 0.05]), pytest.approx([0, 0, 0.375, 0])]
    ends = [pool_increment(GIVEN, PREDICTED, CONFIDENCE, e, 1.0, 0.0, 4).tolist() for e in (0.0, 1.0)]
    assert ends == [[[0.4, 0, 0, 0], [0, 0, 0.5, 0]], [[0, 0.4, 0, 0], [0, 0, 0.5, 0]]]
