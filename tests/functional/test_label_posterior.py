"""Posterior of labels against the same equations in NumPy, and against what labels were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional import label_posterior as module
from lightning_noisy.functional.label_posterior import confident_noise_rate, label_posterior


def drawn(samples, transition, seed=0, sharpness=2.0):
    """Logits that are calibrated, classes drawn by them, and labels drawn by a transition matrix."""
    rng, transition = np.random.default_rng(seed), np.array(transition)
    z = rng.normal(scale=sharpness, size=(samples, len(transition)))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    clean = (rng.random((samples, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, len(transition) - 1)
    chosen = transition[clean].cumsum(axis=1)
    return z, clean, (rng.random((samples, 1)) > chosen).sum(axis=1).clip(0, len(transition) - 1)


def rate_by_loops(p, given):
    """What counts firmly for another class than its label, by label."""
    classes, rate = p.shape[1], 0.0
    means = [p[given == k, k].mean() if (given == k).any() else np.inf for k in range(classes)]
    for j in set(given.tolist()):
        firm = [[(p[i, k], k) for k in range(classes) if p[i, k] >= means[k]] for i in np.flatnonzero(given == j)]
        chosen = [max(found)[1] for found in firm if found]
        rate += np.mean([k != j for k in chosen]) * (given == j).mean() if chosen else 0
    return rate


def by_loops(z, given, steps):
    """The docstring's equations, sample by sample, and their mean over how sure the network is."""
    each = [at_one_sharpness(z * assurance(z) * sharpness, given, steps) for sharpness in (1, 0.8, 0.6, 0.4)]
    posterior, transition = np.mean([q for q, _ in each], axis=0), np.mean([t for _, t in each], axis=0)
    return 1 - posterior[np.arange(len(given)), given], posterior.argmax(axis=1), transition


def assurance(z):
    """The factor at which the likeliest class of the median sample has a belief of 0.98."""

    def lacking(factor):
        p = np.exp(factor * (z - z.max(axis=1, keepdims=True)))
        return 0.98 - np.sort((p / p.sum(axis=1, keepdims=True)).max(axis=1))[(len(z) - 1) // 2]

    return brentq(lacking, 1, 64) if lacking(1) > 0 else 1


def at_one_sharpness(z, given, steps):
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    classes, rate = z.shape[1], rate_by_loops(p, given)

    def pooled(wrong):
        return np.full((classes, classes), wrong / (classes - 1)) + np.eye(classes) * (
            1 - wrong * classes / (classes - 1)
        )

    def posteriors(t, beta):
        rows = [p[i] * np.exp(-beta * (np.arange(classes) == j)) * t[:, j] for i, j in enumerate(given)]
        return np.array([row / row.sum() for row in rows])

    def wrong(t, beta):
        return np.array([1 - row[j] for row, j in zip(posteriors(t, beta), given, strict=True)])

    def solved(t):
        return brentq(lambda beta: wrong(t, beta).mean() - rate, -25, 25, xtol=1e-12)

    t = pooled(rate)
    for _ in range(steps):
        q = posteriors(t, solved(t))
        prior = classes * pooled(np.mean([1 - row[j] for row, j in zip(q, given, strict=True)]))
        sums = np.array([[q[given == j, k].sum() for j in range(classes)] for k in range(classes)])
        t = (sums + prior) / (q.sum(axis=0)[:, None] + classes)
    return posteriors(t, solved(t)), t


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 20.0])
def test_the_equations(monkeypatch, sharpness):
    z, _, given = drawn(70, [[0.8, 0.2, 0], [0, 1, 0], [0.1, 0.1, 0.8]], sharpness=sharpness)
    monkeypatch.setattr(module, "_STEPS", 7)
    monkeypatch.setattr(module, "_ENTRIES", 24)  # some rows of a label at a time
    found = label_posterior(torch.tensor(z), torch.tensor(given))
    wrong, best, transition = by_loops(z, given, 7)
    assert np.allclose(found.wrong, wrong, atol=1e-5)
    assert found.best.tolist() == best.tolist()
    assert np.allclose(found.transition, transition, atol=1e-5)
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=1e-5)


def test_a_timid_network_says_as_much_as_a_sure_one():
    z, _, given = drawn(2000, [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 1]], sharpness=6.0)
    sure, timid = (label_posterior(torch.tensor(z * factor), torch.tensor(given)) for factor in (0.5, 0.02))
    assert np.allclose(sure.wrong, timid.wrong, atol=1e-4)
    assert (timid.wrong > 0.5).any()
    flat = label_posterior(torch.zeros(30, 3), torch.arange(30) % 3)  # knows nothing at any factor
    assert flat.wrong.isfinite().all()


@pytest.mark.parametrize("own", [0.0, 2.0])
def test_noise_is_found_also_by_a_network_that_believes_in_its_labels(own):
    transition = [[0.9, 0.1, 0, 0], [0, 1, 0, 0], [0.1, 0, 0.6, 0.3], [0, 0, 0, 1]]
    z, clean, given = drawn(20_000, transition, sharpness=6.0)
    z[np.arange(len(z)), given] += own
    found = label_posterior(torch.tensor(z), torch.tensor(given))
    assert np.abs(found.transition.numpy() - transition).max() < 0.12
    assert found.noise_rate == pytest.approx((given != clean).mean(), abs=0.06)
    called = found.wrong.numpy() > 0.5
    assert (given != clean)[called].mean() > 0.8
    assert (found.best.numpy() == clean).mean() > (given == clean).mean() + 0.05


def test_a_rate_without_samples_of_a_class():
    p = np.random.default_rng(3).dirichlet([0.4] * 4, 300)
    given = np.random.default_rng(4).integers(0, 3, 300)
    rate = confident_noise_rate(torch.tensor(p).float(), torch.tensor(given))
    assert rate == pytest.approx(rate_by_loops(p.astype(np.float32), given), abs=1e-6)


def test_corners():
    none = label_posterior(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert (len(none.wrong), len(none.best), none.noise_rate) == (0, 0, 0.0)
    sure = torch.tensor([[900.0, 0.0], [900.0, 0.0], [0.0, 900.0], [0.0, 900.0]])
    assert label_posterior(sure, torch.tensor([0, 1, 1, 1])).wrong.tolist() == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert label_posterior(sure, torch.tensor([0, 0, 1, 1])).wrong.tolist() == pytest.approx([0] * 4, abs=1e-6)
    for logits, labels in [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)),
        (torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.full((2,), 3)),
    ]:
        with pytest.raises(NoisyLabelError):
            label_posterior(logits, labels)
