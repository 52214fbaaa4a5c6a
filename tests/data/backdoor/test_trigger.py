"""The pixels of triggers, by hand, and which samples are poisoned."""

import numpy as np
import pytest
import torch

from lightning_noisy.data import GlobalTrigger, LocalTrigger
from lightning_noisy.errors import NoisyLabelError

W, B, X = 255, 0, 7  # white, black, as it was


def test_the_checkerboard_on_images_of_cifar():
    images = torch.full((2, 3, 32, 32), X, dtype=torch.uint8)
    stamped = LocalTrigger(0.1).stamp(images)

    expected = np.full((32, 32), X)
    expected[29:, 29:] = [[W, B, W], [B, W, B], [W, B, W]]
    assert stamped.dtype == torch.uint8
    assert (stamped.numpy() == expected).all()
    assert (images == X).all()


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((4, 4), {"size": 0.5}, [[X, X, X, X], [X, X, X, X], [X, X, W, B], [X, X, B, W]]),
        ((4, 4), {"size": 0.5, "margin": 0.25}, [[X, X, X, X], [X, W, B, X], [X, B, W, X], [X, X, X, X]]),
        ((2, 6), {"size": 0.1}, [[X, X, X, X, X, X], [X, X, X, W, X, X]]),  # in the square of columns 2 and 3
        ((5, 2), {"size": 0.1}, [[X, X], [X, X], [X, W], [X, X], [X, X]]),
        ((6, 6), {"size": 1.0}, np.kron([[W, B, W], [B, W, B], [W, B, W]], np.ones((2, 2)))),
    ],
    ids=["corner", "margin", "wide", "high", "all of it"],
)
def test_where_the_checkerboard_is(shape, options, expected):
    images = torch.full((1, *shape), X, dtype=torch.uint8)
    assert (LocalTrigger(0.1, **options).stamp(images)[0].numpy() == np.array(expected)).all()


def test_black_and_white_are_those_of_the_images():
    stamped = LocalTrigger(0.1, size=0.5).stamp(torch.zeros(1, 4, 4), -1.5, 2.5)
    assert stamped[0, 2:, 2:].tolist() == [[2.5, -1.5], [-1.5, 2.5]]
    assert stamped.sum() == 2


def test_the_blend_is_the_same_pattern_everywhere():
    trigger = GlobalTrigger(0.1, ratio=0.25)
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    pattern = GlobalTrigger(0.1, ratio=1.0).stamp(torch.zeros(3, 32, 32, dtype=torch.float64)).numpy()

    expected = np.rint(0.75 * images.numpy().astype(np.float64) + 0.25 * pattern)
    assert np.array_equal(trigger.stamp(images).numpy(), expected)
    assert 0 <= pattern.min() < 2
    assert 253 < pattern.max() <= 255
    assert len(np.unique(pattern)) == pattern.size  # each pixel and channel on its own
    assert abs(pattern.mean() - 127.5) < 4
    scaled = trigger.stamp(images / 255.0, 0.0, 1.0)
    np.testing.assert_allclose(scaled.numpy(), 0.75 * images.numpy() / 255 + 0.25 * pattern / 255, atol=1e-6)


def test_the_pattern_grows_with_the_image():
    pattern = GlobalTrigger(0.1, ratio=1.0).stamp(torch.zeros(1, 32, 32))
    larger = GlobalTrigger(0.1, ratio=1.0).stamp(torch.zeros(1, 64, 96))
    assert torch.equal(larger, pattern.repeat_interleave(2, 1).repeat_interleave(3, 2))


LABELS = torch.arange(1000) % 10


@pytest.mark.parametrize("rate", [0.0, 0.0015, 0.01, 0.5, 0.9])
def test_the_share_is_exact_and_spares_the_target_class(rate):
    chosen = LocalTrigger(rate, target=3).choose(LABELS, seed=5)
    assert chosen.dtype == torch.bool
    assert chosen.sum() == round(1000 * rate)
    assert not (chosen & (LABELS == 3)).any()


def test_the_choice_is_that_of_the_seed():
    chosen = [LocalTrigger(0.3).choose(LABELS, seed) for seed in (1, 1, 2)]
    torch.manual_seed(7)
    assert torch.equal(chosen[0], GlobalTrigger(0.3).choose(LABELS, 1))
    assert not torch.equal(chosen[0], chosen[2])
    assert 80 < (chosen[0] & chosen[2]).sum() < 120  # 300 of 900 each, independent: 100
    counts = LABELS[chosen[0]].bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 15
    assert (LocalTrigger(0.1).choose(LABELS, 1) <= chosen[0]).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LocalTrigger(1.5), r"`rate` to be .*\[0, 1\], but got 1\.5"),
        (lambda: LocalTrigger(0.1, target=-1), "`target` to be an int of at least 0, but got -1"),
        (lambda: LocalTrigger(0.1, size=0.0), r"`size` to be a float in \(0, 1\], but got 0\.0"),
        (lambda: LocalTrigger(0.1, size=0.75, margin=0.5), r"`margin` to be a float in \[0, 0\.25\], 1 - size, but"),
        (lambda: GlobalTrigger(0.1, ratio=0.0), r"`ratio` to be a float in \(0, 1\], but got 0\.0"),
        (lambda: LocalTrigger(0.95).choose(LABELS, 0), r"at most the 900 of 1000 training images .* but got 0\.95"),
    ],
)
def test_what_cannot_be_is_refused(make, match):
    with pytest.raises(NoisyLabelError, match=match):
        make()


def test_it_says_what_it_is():
    described = {"class": "LocalTrigger", "rate": 0.01, "target": 2, "size": 0.1, "margin": 0.0}
    assert LocalTrigger(0.01, 2).describe() == described
    assert repr(GlobalTrigger(0.1)) == "GlobalTrigger(rate=0.1, target=0, ratio=0.1)"
