import json
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from lightning_noisy.data.noise import PMDNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate

SAMPLES, CLASSES = 4000, 5
CLEAN = torch.arange(SAMPLES) * 3 % CLASSES


def made_up_posterior():
    """A classifier that is right for about 85 % of the samples, and whose second guess often is for the others."""
    stream = np.random.RandomState(0)
    logits = stream.randn(SAMPLES, CLASSES)
    logits[np.arange(SAMPLES), CLEAN] += stream.gamma(4.0, 0.8, SAMPLES)
    return softmax(logits, axis=1).astype(np.float32)


POSTERIOR = made_up_posterior()
CODE = {
    1: lambda gap: np.maximum(1 - (-(1 / 2) * gap**2 + 1 / 2), 0.5),
    2: lambda gap: 1 - (1 - np.abs(gap) ** 3),
    3: lambda gap: 1 - (1 - (1 / 3) * np.abs(gap) ** 3 - (1 / 3) * np.abs(gap) ** 2 - (1 / 3) * np.abs(gap)),
}


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "posterior.npz", index=np.arange(SAMPLES), probabilities=POSTERIOR)
    return tmp_path / "posterior.npz"


def top_two():
    order = np.argsort(-POSTERIOR.astype(np.float64), axis=1, kind="stable")
    best, second = order[:, 0], order[:, 1]
    rows = np.arange(SAMPLES)
    return best, second, POSTERIOR[rows, best].astype(np.float64) - POSTERIOR[rows, second]


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("factor", [1.2, 0.4])
def test_labels_have_the_law_of_the_published_code(path, kind, factor):
    best, second, gap = top_two()
    keep = np.minimum(1, CODE[kind](gap) / factor)
    draws = [PMDNoise(kind, None, path, factor).corrupt(CLEAN, CLASSES, seed).numpy() for seed in range(40)]

    assert all(((labels == best) | (labels == second)).all() for labels in draws)
    kept = sum((labels == best).astype(float) for labels in draws)
    assert (kept[keep == 1] == 40).all()
    spread = (kept - 40 * keep) / np.sqrt(40 * keep * (1 - keep) + 1e-9)
    groups = np.array_split(np.argsort(gap), 10)
    for group in groups:
        variance = (40 * keep[group] * (1 - keep[group])).sum()
        assert abs((kept[group] - 40 * keep[group]).sum()) <= 4.5 * math.sqrt(variance) + 1e-6
    free = (keep > 0.2) & (keep < 0.8)
    assert free.sum() < 100 or 0.85 < spread[free].var() < 1.15


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.35, 0.7])
def test_the_rate_is_hit_whatever_the_kind(path, kind, rate):
    rates = [noise_rate(CLEAN, PMDNoise(kind, rate, path).corrupt(CLEAN, CLASSES, seed)) for seed in range(5)]

    assert all(abs(found - rate) < 4 * math.sqrt(rate * (1 - rate) / SAMPLES) for found in rates)
    assert abs(np.mean(rates) - rate) < 4 * math.sqrt(rate * (1 - rate) / SAMPLES / 5)
    assert len(set(rates)) > 1


def test_a_bare_array_will_do(tmp_path, path):
    expected = PMDNoise(2, 0.35, path).corrupt(CLEAN, CLASSES, 0)
    np.save(tmp_path / "bare.npy", POSTERIOR)
    np.savez(tmp_path / "named.npz", posterior=POSTERIOR, other=np.zeros(3))

    assert torch.equal(PMDNoise(2, 0.35, tmp_path / "bare.npy").corrupt(CLEAN, CLASSES, 0), expected)
    named = PMDNoise(2, 0.35, tmp_path / "named.npz", key="posterior")
    assert torch.equal(named.corrupt(CLEAN, CLASSES, 0), expected)


def test_labels_are_the_same_on_every_machine(path):
    state = torch.get_rng_state()

    assert (
        labels_hash(PMDNoise(3, 0.35, path).corrupt(CLEAN, CLASSES, 42))
        == "54aff66db490a0a05bd27178b9be164253132d650abef7ead4fe945e19c16843"
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(CLEAN, torch.arange(SAMPLES) * 3 % CLASSES)


def test_lower_classes_come_first_on_ties(tmp_path):
    np.save(tmp_path / "tied.npy", np.array([[0.25, 0.25, 0.25, 0.25], [0.2, 0.4, 0.0, 0.4]]))
    labels = [PMDNoise(1, None, tmp_path / "tied.npy", c).corrupt(torch.zeros(2).long(), 4, 0) for c in (1e-9, 1e9)]

    assert [found.tolist() for found in labels] == [[0, 1], [1, 3]]


def test_it_describes_itself():
    description = PMDNoise(1, 0.35, "p.npz").describe()

    assert description == {
        "class": "PMDNoise",
        "type": 1,
        "rate": 0.35,
        "posterior": "p.npz",
        "factor": None,
        "key": None,
    }
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 0.35, "p.npy"), "`type` to be 1, 2 or 3, but got 4."),
        ((1, 1.35, "p.npy"), "`rate` to be a float in [0, 1], but got 1.35."),
        ((1, None, "p.npy"), "`rate` to be given, or else `factor`, and not both, but got None."),
        ((1, 0.35, "p.npy", 1.2), "`rate` to be given, or else `factor`, and not both, but got 0.35."),
        ((1, None, "p.npy", 0.0), "`factor` to be a float above 0, but got 0.0."),
        ((1, 0.35, "p.pt"), "`posterior` to be a .npy or .npz file, but got 'p.pt'."),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(NoisyLabelError) as error:
        PMDNoise(*arguments)
    assert str(error.value) == f"Expected argument {message}"


def test_a_rate_out_of_reach_is_refused(path):
    with pytest.raises(
        NoisyLabelError, match=r"^Expected argument `rate` to lie between 0\.\d+, .* and 0\.\d+, .* got 0\.01: "
    ):
        PMDNoise(1, 0.01, path).corrupt(CLEAN, CLASSES, 0)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"other": POSTERIOR}, "an array named 'probabilities', but got 'other': set `key`"),
        ({"probabilities": POSTERIOR[1:]}, r"shape \(4000, 5\), but got shape \(3999, 5\): "),
        ({"probabilities": POSTERIOR[:, :4]}, r"shape \(4000, 5\), but got shape \(4000, 4\): "),
        ({"probabilities": POSTERIOR * 2}, "but got row 0 with sum 2 .*: save softmax outputs"),
        ({"probabilities": POSTERIOR - 0.1}, "but got row 0 with sum 0.5 and minimum -"),
        ({"probabilities": POSTERIOR * np.nan}, "but got row 0 with sum nan"),
        ({"probabilities": POSTERIOR.astype(str)}, "but got dtype <U"),
        ({"probabilities": POSTERIOR, "index": np.arange(SAMPLES) + 1}, "the samples 0 to 3999 .* but got others: "),
        ({"probabilities": POSTERIOR, "index": np.arange(9)}, "the samples 0 to 3999 .* but got others: "),
    ],
)
def test_a_file_without_such_probabilities_is_refused(tmp_path, arrays, match):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(NoisyLabelError, match=match) as error:
        PMDNoise(1, 0.35, tmp_path / "p.npz").corrupt(CLEAN, CLASSES, 0)
    assert str(error.value).startswith(f"Expected the file '{tmp_path / 'p.npz'}' to hold ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"class probabilities, but got no such file: check `posterior`"):
        PMDNoise(1, 0.35, tmp_path / "p.npy").corrupt(CLEAN, CLASSES, 0)
