from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_noisy.functional.epoch_window import mean_before, note, window_shape

SAMPLES, WIDTH = 5, 2


class Remembered:
    """What a dict remembers: sample -> epoch -> the values noted last in it."""

    def __init__(self) -> None:
        self.noted: dict[int, dict[int, np.ndarray]] = {sample: {} for sample in range(SAMPLES)}

    def mean(self, sample: int, epoch: int, window: int) -> np.ndarray | None:
        past = [values for e, values in self.noted[sample].items() if epoch - window <= e < epoch]
        return np.mean(past, axis=0) if past else None


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_random_visits_against_a_dict(window: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = torch.zeros(SAMPLES, *window_shape(window, WIDTH), dtype=torch.float64)
    oracle, with_a_past, repeated, gaps = Remembered(), 0, 0, 0
    for epoch in range(25):
        for sample in rng.integers(SAMPLES, size=rng.integers(0, 6)):
            expected = oracle.mean(sample, epoch, window)
            repeated += epoch in oracle.noted[sample]
            gaps += expected is None and bool(oracle.noted[sample])
            mean, known = mean_before(rows[[sample]], epoch)
            assert known.item() == (expected is not None)
            np.testing.assert_allclose(mean[0], 0.0 if expected is None else expected, rtol=1e-12)
            with_a_past += bool(known)
            values = rng.random(WIDTH)
            rows[[sample]] = note(rows[[sample]], torch.tensor(values)[None], epoch)
            oracle.noted[sample][epoch] = values
    assert min(with_a_past, repeated, gaps) >= (1 if window > 3 else 3)


@pytest.mark.parametrize("start", [0, 2047, 4093, 100_003], ids=str)
def test_the_future_and_this_epoch_do_not_count(start: int) -> None:
    """In rows that are kept in float16, which tells 2048 numbers apart."""
    rows = torch.zeros(1, *window_shape(3, 1))
    for epoch in (4, 5, 6):
        rows = note(rows, torch.tensor([[float(epoch)]]), start + epoch).half().float()
    for epoch, expected in ((4, None), (5, 4.0), (6, 4.5), (7, 5.0), (8, 5.5), (9, 6.0), (10, None)):
        mean, known = mean_before(rows, start + epoch)
        assert mean.item() == (expected or 0.0)
        assert known.item() == (expected is not None)


def test_rows_are_not_written_in_place_and_zeros_are_values() -> None:
    rows = torch.zeros(2, *window_shape(2, 1))
    noted = note(rows, torch.zeros(2, 1), 0)
    assert not rows.any()
    mean, known = mean_before(noted, 1)
    assert known.all()
    assert not mean.any()
    assert not mean_before(rows, 1)[1].any()
