from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.losses import draw_negatives
from lightning_noisy.losses import NegativeLearning, SelectiveNegativeLearning, SelectivePositiveLearning
from tests.losses.numpy_oracle import CLASSES, INDEX, TARGET, Array, at_label, attach, epochs, softmax

WEIGHTS = [1.0, 2.0, 5.0, 0.5]


def negatives(epoch: int, count: int, seed: int = 3) -> Array:
    drawn = draw_negatives(TARGET, CLASSES, count, 0x6E656761746976, seed, epoch, INDEX)
    return drawn.numpy()


def negative_losses(logits: Array, epoch: int, count: int) -> Array:
    rest = 1 - softmax(logits)[np.arange(3)[:, None], negatives(epoch, count)]
    return -np.log(np.clip(rest, 1e-5, 1)).sum(1)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_negative_learning(count: int, weights: list[float] | None) -> None:
    loss = NegativeLearning(count, weights, seed=3, reduction="none")
    assert loss.store_shapes(CLASSES) == {}
    for epoch, logits in enumerate(epochs(3)):
        expected = negative_losses(logits, epoch, count) * (1.0 if weights is None else np.array(weights)[TARGET])
        np.testing.assert_allclose(loss(torch.tensor(logits), TARGET, index=INDEX, epoch=epoch), expected, rtol=1e-10)


def test_seed_is_the_runs_and_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    loss = NegativeLearning()
    assert loss.seed.item() == 11
    monkeypatch.delenv("PL_GLOBAL_SEED")
    resumed = NegativeLearning()
    assert resumed.seed.item() == 0
    resumed.load_state_dict(loss.state_dict())
    assert resumed.seed.item() == 11
    assert NegativeLearning(seed=-5).seed.item() == -5


def test_class_weights_for_another_number_of_classes() -> None:
    with pytest.raises(NoisyLabelError) as caught:
        NegativeLearning(class_weights=[1.0, 2.0])(torch.zeros(3, CLASSES), TARGET, index=INDEX, epoch=0)
    assert str(caught.value) == (
        "Expected argument `class_weights` to be for K = 4 classes, those of the logits, but got 'one for 2'."
    )


def remembered(history: list[Array], epoch: int, window: int) -> Array:
    """Mean label probability of the epochs before."""
    past = [at_label(softmax(logits)) for logits in history[max(0, epoch - window) : epoch]]
    return np.mean(past, axis=0) if past else np.ones(3)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_selective_negative_learning(window: int, threshold: float | None) -> None:
    loss = attach(
        SelectiveNegativeLearning(
            2, threshold=threshold, window=window, seed=3, class_weights=WEIGHTS, reduction="none"
        )
    )
    history, counts = epochs(9, scale=2.0), set()
    for epoch, logits in enumerate(history):
        kept = remembered(history, epoch, window) >= (1 / CLASSES if threshold is None else threshold)
        counts.add(int(kept.sum()))
        expected = kept * negative_losses(logits, epoch, 2) * np.array(WEIGHTS)[TARGET] * 3 / max(1, kept.sum())
        actual = loss(torch.tensor(logits), TARGET, index=INDEX, epoch=epoch)
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
    assert len(counts) >= 3


@pytest.mark.parametrize("window", [1, 3])
def test_selective_positive_learning(window: int) -> None:
    loss = attach(SelectivePositiveLearning(threshold=0.35, window=window))
    history, counts = epochs(12, scale=2.0), set()
    for epoch, logits in enumerate(history):
        kept = remembered(history, epoch, window) >= 0.35
        counts.add(int(kept.sum()))
        p, leaf = softmax(logits), torch.tensor(logits, requires_grad=True)
        actual = loss(leaf, TARGET, index=INDEX, epoch=epoch)
        actual.backward()
        assert leaf.grad is not None
        chosen = kept / max(1, kept.sum())
        np.testing.assert_allclose(actual.item(), -(chosen * np.log(at_label(p))).sum(), rtol=1e-10)
        np.testing.assert_allclose(leaf.grad, chosen[:, None] * (p - np.eye(CLASSES)[TARGET]), atol=1e-12)
    assert {0, 1, 3} <= counts


def test_class_weights_of_positive_learning_are_those_of_the_official_code() -> None:
    """Its criterion is torch's, with weights and with the labels that are dropped ignored."""
    loss, criterion = attach(SelectivePositiveLearning(0.35, 1, WEIGHTS)), nn.CrossEntropyLoss(torch.tensor(WEIGHTS))
    for epoch, logits in enumerate(history := epochs(12, scale=2.0)):
        kept = torch.tensor(remembered(history, epoch, 1) >= 0.35)
        actual = loss(torch.tensor(logits), TARGET, index=INDEX, epoch=epoch)
        expected = criterion.double()(torch.tensor(logits), TARGET.where(kept, -100)) if kept.any() else torch.tensor(0)
        torch.testing.assert_close(actual, expected.double())


def test_threshold_itself() -> None:
    """p_y = 1 / K is kept by SelNL, and 0.5 by SelPL."""
    flat, even = torch.zeros(3, CLASSES), torch.zeros(3, 2)
    negative = attach(SelectiveNegativeLearning(window=1, seed=3))
    negative(flat, TARGET, index=INDEX, epoch=0)
    assert negative(flat, TARGET, index=INDEX, epoch=1) > 0
    positive = attach(SelectivePositiveLearning(window=1))
    positive(even, TARGET.clamp(max=1), index=INDEX, epoch=0)
    assert positive(even, TARGET.clamp(max=1), index=INDEX, epoch=1) > 0


def test_a_probability_that_underflows_is_a_past() -> None:
    loss = attach(SelectivePositiveLearning(window=4), torch.float32)
    hopeless = torch.full((3, CLASSES), 1e4).scatter(1, TARGET.unsqueeze(1), -1e4)
    loss(hopeless, TARGET, index=INDEX, epoch=0)
    assert loss(torch.zeros(3, CLASSES), TARGET, index=INDEX, epoch=1) == 0


def test_defaults() -> None:
    plain, selective, positive = NegativeLearning(), SelectiveNegativeLearning(), SelectivePositiveLearning()
    assert (plain.num_negatives, plain.window, plain.eps) == (1, 0, 1e-5)
    assert (selective.num_negatives, selective.window, selective.eps, selective.threshold) == (1, 10, 1e-5, None)
    assert (positive.threshold, positive.window) == (0.5, 10)
