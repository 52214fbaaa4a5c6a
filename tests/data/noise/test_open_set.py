import json

import pytest
import torch
from scipy import stats

from lightning_noisy.data.noise import InstanceDependentNoise, OpenSetNoise, PairFlipNoise, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate, transition_counts

CLEAN = torch.arange(50_000) * 7 % 100
OUTSIDE = CLEAN >= 80


@pytest.mark.parametrize(
    ("closed", "total"), [(SymmetricNoise(0.2), 0.36), (SymmetricNoise(0.8), 0.84), (PairFlipNoise(0.4), 0.52)]
)
def test_the_rates_of_cifar80n_o(closed, total):
    noisy = OpenSetNoise(closed).corrupt(CLEAN, 80, 0)

    assert abs(noise_rate(CLEAN, noisy) - total) < 4 * (0.8 * 0.25 / 50_000) ** 0.5
    assert bool((noisy[OUTSIDE] != CLEAN[OUTSIDE]).all())
    assert (int(noisy.min()), int(noisy.max())) == (0, 79)


def test_outsiders_get_every_label_alike():
    counts = transition_counts(CLEAN, OpenSetNoise().corrupt(CLEAN, 80, 1), 80, 100)

    assert stats.chisquare(counts[80:].sum(0)).pvalue > 1e-3
    assert stats.chi2.sf(float(((counts[80:] - 6.25) ** 2 / 6.25).sum()), 20 * 79) > 1e-3
    assert torch.equal(counts[:80], 500 * torch.eye(80, dtype=torch.int64))


def test_the_closed_set_is_a_training_set_of_its_own():
    closed = SymmetricNoise(0.4, exact=True)
    noisy = OpenSetNoise(closed).corrupt(CLEAN, 80, 3)

    assert torch.equal(noisy[~OUTSIDE], closed.corrupt(CLEAN[~OUTSIDE], 80, 3))
    pairs = transition_counts(CLEAN, OpenSetNoise(PairFlipNoise(0.4)).corrupt(CLEAN, 80, 0), 80, 100)[:80]
    assert set(map(tuple, pairs.nonzero().tolist())) == {(i, j % 80) for i in range(80) for j in (i, i + 1)}


def test_images_reach_the_closed_noise():
    images = torch.randint(256, (500, 12), generator=torch.Generator().manual_seed(0))
    closed = InstanceDependentNoise(0.5)
    clean = torch.arange(500) % 6

    noisy = OpenSetNoise(closed).corrupt(clean, 4, 0, images.__getitem__)

    inside = clean < 4
    assert torch.equal(noisy[inside], closed.corrupt(clean[inside], 4, 0, images[inside].__getitem__))


def test_labels_are_the_same_on_every_machine():
    state = torch.get_rng_state()
    noisy = OpenSetNoise(SymmetricNoise(0.8)).corrupt(CLEAN, 80, 42)

    assert labels_hash(noisy) == "8c31d157e7020790f3183e2ea798d31214a4b7c44e5a2f92670b7ebaf39913a9"
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(CLEAN, torch.arange(50_000) * 7 % 100)
    assert not torch.equal(OpenSetNoise().corrupt(CLEAN, 80, 0)[OUTSIDE], noisy[OUTSIDE])


def test_it_describes_its_closed_noise():
    closed = {"class": "PairFlipNoise", "rate": 0.4, "exact": False}
    noise = OpenSetNoise(PairFlipNoise(0.4))

    assert noise.describe() == {"class": "OpenSetNoise", "closed": closed}
    assert OpenSetNoise().describe() == {"class": "OpenSetNoise", "closed": None}
    assert json.loads(json.dumps(noise.describe())) == noise.describe()
    assert repr(noise) == "OpenSetNoise(closed=PairFlipNoise(rate=0.4, exact=False))"
    assert noise.rate is None


def test_without_outsiders_it_is_refused():
    with pytest.raises(NoisyLabelError, match=r"every clean label is below 100: use the noise of the closed set"):
        OpenSetNoise().corrupt(CLEAN, 100, 0)
    assert OpenSetNoise(SymmetricNoise(0.2)).corrupt(CLEAN[:0], 10, 0).shape == (0,)


@pytest.mark.parametrize("targets", [torch.tensor([-1, 9]), torch.tensor([0.0, 9.0]), torch.tensor([[0, 9]])])
def test_what_is_no_label_is_refused(targets):
    with pytest.raises(NoisyLabelError, match=r"`targets` to "):
        OpenSetNoise().corrupt(targets, 4, 0)
