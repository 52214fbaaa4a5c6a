import numpy as np
import pytest
import torch

from lightning_noisy.functional.mixture import gaussian_mixture
from lightning_noisy.functional.spectral import alignment, class_directions, clean_by_class

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 5)) + 2.0
LABELS = np.arange(60) % 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_are_right_singular_vectors_of_the_chosen_samples(dtype):
    chosen = RNG.random(60) < 0.5
    features, labels = torch.tensor(FEATURES, dtype=dtype), torch.tensor(LABELS)
    directions = class_directions(features, labels, 3, torch.tensor(chosen))
    expected = np.stack([np.linalg.svd(FEATURES[chosen & (k == LABELS)])[2][0] for k in range(3)])
    np.testing.assert_allclose(np.abs((directions.numpy() * expected).sum(1)), 1.0, atol=1e-6)
    scores = alignment(features, labels, directions)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, np.abs((unit * expected[LABELS]).sum(1)), atol=1e-6)


def test_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 0.0]])
    scores = alignment(features, torch.tensor([0, 0, 1]), torch.eye(2, dtype=torch.float64))
    assert scores.tolist() == pytest.approx([0.6, 0.0, 0.0])


def test_a_class_without_samples_or_features_has_no_direction():
    features = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    directions = class_directions(features, torch.tensor([0, 1, 3]), 4, torch.tensor([True, True, False]))
    assert directions.abs().tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_mixtures_of_classes_with_the_higher_side_clean():
    """What is high in one class is low in the other; the last class has a single sample, one has none."""
    heaps = [RNG.normal(m, 0.01, 20) for m in (0.9, 0.5, 0.5, 0.1)]
    scores = torch.tensor(np.concatenate([*heaps, [0.0]]))
    labels = torch.tensor([0] * 40 + [1] * 40 + [3])
    clean = clean_by_class(scores, labels, 4, seed=0)
    assert ((clean > 0.5).numpy() == ([True] * 20 + [False] * 20) * 2 + [True]).all()
    fit = gaussian_mixture(scores[:40], 0, higher_is_clean=True, max_iter=100, tol=1e-6, reg_covar=1e-6)
    assert torch.equal(clean[:40], fit.clean)
