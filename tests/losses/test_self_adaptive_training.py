from __future__ import annotations

import numpy as np
import torch

from lightning_noisy.losses import SelfAdaptiveTraining
from tests.losses.numpy_oracle import CLASSES, INDEX, SAMPLES, TARGET, at_label, attach, epochs, rows_of, softmax


def test_epochs_against_numpy() -> None:
    loss = attach(SelfAdaptiveTraining(warmup_epochs=2, momentum=0.7, reduction="none"))
    table = np.zeros((SAMPLES, CLASSES))
    for epoch, logits in enumerate(epochs(5)):
        p, leaf = softmax(logits), torch.tensor(logits, requires_grad=True)
        actual = loss(leaf, TARGET, index=INDEX, epoch=epoch)
        actual.sum().backward()
        assert leaf.grad is not None
        if epoch < 2:
            np.testing.assert_allclose(actual.detach(), -np.log(at_label(p)), rtol=1e-10)
            np.testing.assert_allclose(leaf.grad, p - np.eye(CLASSES)[TARGET], rtol=1e-10, atol=1e-12)
            assert not rows_of(loss, "target").any()
            continue
        before = np.eye(CLASSES)[TARGET] if epoch == 2 else table[INDEX]
        table[INDEX] = 0.7 * before + 0.3 * p
        weights = table[INDEX].max(1) * 3 / table[INDEX].max(1).sum()
        np.testing.assert_allclose(actual.detach(), weights * -(table[INDEX] * np.log(p)).sum(1), rtol=1e-10)
        np.testing.assert_allclose(rows_of(loss, "target"), table, rtol=1e-10)
        np.testing.assert_allclose(leaf.grad, weights[:, None] * (p - table[INDEX]), rtol=1e-10, atol=1e-12)


def test_a_sample_that_joins_late_starts_at_its_label() -> None:
    loss = attach(SelfAdaptiveTraining(warmup_epochs=0, momentum=0.5))
    first, second = epochs(2)
    loss(torch.tensor(first), TARGET, index=INDEX, epoch=0)
    other = torch.tensor([5, 0, 2])
    loss(torch.tensor(second), TARGET, index=other, epoch=1)
    rows = rows_of(loss, "target")
    np.testing.assert_allclose(rows[5], 0.5 * np.eye(CLASSES)[0] + 0.5 * softmax(second)[0], rtol=1e-10)
    np.testing.assert_allclose(rows[6], 0.5 * np.eye(CLASSES)[0] + 0.5 * softmax(first)[0], rtol=1e-10)


def test_momentum_zero_takes_the_prediction_as_a_constant() -> None:
    loss = attach(SelfAdaptiveTraining(warmup_epochs=0, momentum=0.0))
    leaf = torch.tensor(epochs(1)[0], requires_grad=True)
    loss(leaf, TARGET, index=INDEX, epoch=0).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.zeros_like(leaf), rtol=0, atol=1e-15)


def test_defaults() -> None:
    loss = SelfAdaptiveTraining()
    assert (loss.warmup_epochs, loss.momentum, loss.reduction) == (60, 0.9, "mean")
