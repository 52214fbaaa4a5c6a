import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special, stats

from lightning_noisy.data.noise import InstanceDependentNoise
from lightning_noisy.data.noise import instance as module
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash, noise_rate, transition_counts

STREAM = int.from_bytes(b"noise", "big")
MASK = 2**64 - 1
NOISE = InstanceDependentNoise(0.4)
PIXELS = np.random.RandomState(0).randint(0, 256, (3000, 3, 4, 4)).astype(np.uint8)
IMAGES = torch.from_numpy(PIXELS).__getitem__
CLEAN = torch.arange(3000) * 7 % 10


def uniform(*keys):
    """SplitMix64 over the keys, in Python's integers."""
    bits = 0
    for key in keys:
        bits = ((bits ^ key) + 0x9E3779B97F4A7C15) & MASK
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        bits ^= bits >> 31
    return (bits >> 11) * 2.0**-53


def weights(seed, label, features, num_classes):
    return np.array(
        [[stats.norm.ppf(uniform(seed, STREAM, 2, label, s, k)) for k in range(num_classes)] for s in range(features)]
    )


def brute_force(pixels, labels, num_classes, seed, rate, std, scale):
    """Algorithm 2 of the paper, sample by sample."""
    flips = stats.truncnorm(-rate / std, (1 - rate) / std, loc=rate, scale=std)
    matrices = {label: weights(seed, label, pixels[0].size, num_classes) for label in set(labels)}
    noisy = []
    for n, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        scores = image.reshape(-1).astype(np.float64) @ matrices[label] / scale
        scores[label] = -np.inf
        rate_of_image = flips.ppf(uniform(seed, STREAM, 1, n))
        probabilities = rate_of_image * special.softmax(scores)
        probabilities[label] += 1 - rate_of_image
        noisy.append(int(np.searchsorted(np.cumsum(probabilities), uniform(seed, STREAM, 3, n), side="right")))
    return noisy


@pytest.mark.parametrize(("scale", "rate", "std"), [(1.0, 0.4, 0.1), (255.0, 0.9, 0.3), (3000.0, 0.5, 0.05)])
def test_labels_equal_the_published_algorithm(scale, rate, std):
    labels = (np.arange(200) * 3 % 5).tolist()

    found = InstanceDependentNoise(rate, std, scale).corrupt(torch.tensor(labels), 5, 11, IMAGES)

    assert found.tolist() == brute_force(PIXELS[:200], labels, 5, 11, rate, std, scale)


@pytest.mark.parametrize(("rate", "expected"), [(0.2, 0.2055), (0.4, 0.4)])
def test_the_realized_rate_is_that_of_the_truncated_normal(rate, expected):
    """The published label files have 0.2049 and 0.2048, 0.4029 and 0.3995."""
    clean = torch.arange(20_000) % 10
    noisy = InstanceDependentNoise(rate).corrupt(clean, 10, 1, lambda n: IMAGES(n % 3000))

    deviation = math.sqrt(expected * (1 - expected) / 20_000)
    for found in (noise_rate(clean, noisy), 0.2049 if rate == 0.2 else 0.4029):
        assert abs(found - expected) < 4 * deviation


def test_equal_images_of_a_class_share_their_probabilities():
    """Chi-square of 20,000 copies of an image, against the matrix of its class."""
    image, scale = PIXELS[5], 2000.0
    clean = torch.full((20_000,), 2)
    noisy = InstanceDependentNoise(0.4, 0.1, scale).corrupt(clean, 6, 3, lambda _: torch.from_numpy(image))

    scores = image.reshape(-1) @ weights(3, 2, 48, 6) / scale
    scores[2] = -np.inf
    expected = 0.4 * special.softmax(scores)
    expected[2] = 0.6
    assert stats.chisquare(np.bincount(noisy, minlength=6), 20_000 * expected).pvalue > 1e-3


def test_labels_depend_on_the_image():
    """Two images of one class flip to different classes, each almost always to its own."""
    clean = torch.zeros(4000, dtype=torch.int64)
    noisy = InstanceDependentNoise(0.5).corrupt(clean, 10, 0, lambda n: IMAGES(n % 2))

    targets = [noisy[start::2][noisy[start::2] > 0].unique().tolist() for start in (0, 1)]
    assert [len(found) for found in targets] == [1, 1]
    assert targets[0] != targets[1]


def test_flips_of_a_class_concentrate():
    common = np.random.RandomState(1).randint(0, 200, (3, 4, 4))
    images = np.minimum(255, common + PIXELS // 5).astype(np.uint8)
    counts = transition_counts(CLEAN, NOISE.corrupt(CLEAN, 10, 0, torch.from_numpy(images).__getitem__), 10)

    wrong = counts.double().fill_diagonal_(0)
    top = wrong.topk(4, dim=1).values.sum() / wrong.sum()
    assert top > 0.8


def test_a_label_depends_on_seed_position_class_and_image_alone(monkeypatch):
    noisy = NOISE.corrupt(CLEAN, 10, 5, IMAGES)

    for length in (0, 1, 1234):
        assert torch.equal(NOISE.corrupt(CLEAN[:length], 10, 5, IMAGES), noisy[:length])
    others = (CLEAN + torch.arange(3000) % 10) % 10
    same = others == CLEAN
    assert torch.equal(NOISE.corrupt(others, 10, 5, IMAGES)[same], noisy[same])
    for chunk in (48 * 7, 5000):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert torch.equal(NOISE.corrupt(CLEAN, 10, 5, IMAGES), noisy)
    assert not torch.equal(NOISE.corrupt(CLEAN, 10, 6, IMAGES), noisy)


def test_images_of_every_kind_are_read():
    whole = PIXELS.transpose(0, 2, 3, 1)
    expected = NOISE.corrupt(CLEAN[:300], 10, 0, torch.from_numpy(whole).__getitem__)

    for images in (whole.__getitem__, lambda n: Image.fromarray(whole[n]), lambda n: whole[n].tolist()):
        assert torch.equal(NOISE.corrupt(CLEAN[:300], 10, 0, images), expected)


def test_rates_at_the_ends():
    labels = [InstanceDependentNoise(rate, std=0).corrupt(CLEAN, 10, 0, IMAGES) for rate in (0, 1)]

    assert torch.equal(labels[0], CLEAN)
    assert (labels[1] != CLEAN).all()


def test_memory_is_that_of_one_class_and_images_are_read_once(monkeypatch):
    read, sizes, original = [], [], module._class_weights

    def watched(*arguments):
        sizes.append(original(*arguments).shape)
        return original(*arguments)

    def image(index):
        read.append(index)
        return IMAGES(index)

    monkeypatch.setattr(module, "_class_weights", watched)
    monkeypatch.setattr(module, "_CHUNK", 48 * 100)
    monkeypatch.setattr(module, "_matrix", lambda *a, original=module._matrix: check(original(*a)))

    def check(matrix):
        assert len(matrix) <= 100
        return matrix

    NOISE.corrupt(CLEAN, 10, 0, image)

    assert sizes == [(48, 10)] * 10
    assert sorted(read[1:]) == list(range(3000))


def test_labels_are_the_same_on_every_machine():
    state = torch.get_rng_state()

    assert (
        labels_hash(NOISE.corrupt(CLEAN, 10, 42, IMAGES))
        == "30111575dd420b69df911b7d91501b544421dea641bf5a5d68ba4fa9b6e254c2"
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(CLEAN, torch.arange(3000) * 7 % 10)


def test_it_describes_itself():
    description = InstanceDependentNoise(0.2, scale=255).describe()

    assert description == {"class": "InstanceDependentNoise", "rate": 0.2, "std": 0.1, "scale": 255.0}
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.2}, "`rate` to be a float in [0, 1], but got 1.2."),
        ({"rate": 0.2, "std": -0.1}, "`std` to be a float of at least 0, but got -0.1."),
        ({"rate": 0.2, "std": math.nan}, "`std` to be a float of at least 0, but got nan."),
        ({"rate": 0.2, "scale": 0}, "`scale` to be a float above 0, but got 0."),
    ],
)
def test_arguments_outside_their_range_are_refused(options, message):
    with pytest.raises(NoisyLabelError) as error:
        InstanceDependentNoise(**options)
    assert str(error.value) == f"Expected argument {message}"


def test_without_images_of_one_size_it_is_refused():
    with pytest.raises(NoisyLabelError, match=r"^InstanceDependentNoise looks at the images, but got none: ") as error:
        NOISE.corrupt(CLEAN, 10, 0)
    assert "\n" not in str(error.value)
    with pytest.raises(NoisyLabelError, match=r"image 0 has 48 values and image 30 has 40: resize"):
        NOISE.corrupt(CLEAN, 10, 0, lambda n: IMAGES(n) if n < 30 else torch.zeros(40))
    with pytest.raises(NoisyLabelError, match=r"`targets` to lie in \[0, 9\)"):
        NOISE.corrupt(CLEAN, 9, 0, IMAGES)
