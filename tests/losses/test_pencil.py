from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_noisy.losses import PencilLoss
from tests.losses.numpy_oracle import CLASSES, INDEX, SAMPLES, TARGET, at_label, attach, epochs, rows_of, softmax


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_epochs_against_numpy(form: str, reduction: str) -> None:
    loss = attach(
        PencilLoss(
            0.4, 0.1, label_lr=30.0, warmup_epochs=1, fixed_from_epoch=4, scale=2.0, form=form, reduction=reduction
        )
    )
    rows, divisor = np.eye(CLASSES)[TARGET], CLASSES if form == "code" else 1
    label_logits = 2.0 * rows
    for epoch, logits in enumerate(epochs(6, scale=1.0)):
        p, d = softmax(logits), softmax(label_logits)
        divergence = (p * np.log(p / d)).sum(1) / divisor
        if epoch < 1:
            each, by_z = -np.log(at_label(p)), p - rows
        else:
            scores = np.log(p / d)
            if epoch < 4:
                read = softmax(d) if form == "code" else d
                entropy = -(p * np.log(p)).sum(1) / divisor
                each = divergence - 0.4 * np.log(at_label(read)) + 0.1 * entropy
                scores = scores - 0.1 * np.log(p)
                by_d = 0.4 * (read - rows) if form == "code" else -0.4 * rows / d
                step = (d - p) / divisor + d * (by_d - (d * by_d).sum(1, keepdims=True))
                label_logits = label_logits - 30.0 / 3 * step
            else:
                each = divergence
            by_z = p * (scores - (p * scores).sum(1, keepdims=True)) / divisor
        leaf = torch.tensor(logits, requires_grad=True)
        actual = loss(leaf, TARGET, index=INDEX, epoch=epoch)
        actual.sum().backward()
        np.testing.assert_allclose(actual.detach(), each.mean() if reduction == "mean" else each, rtol=1e-10)
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad, by_z / (3 if reduction == "mean" else 1), rtol=1e-10, atol=1e-13)
        table = np.zeros((SAMPLES, CLASSES))
        table[INDEX] = label_logits - 2.0 * rows
        np.testing.assert_allclose(rows_of(loss, "label_logits"), table, rtol=1e-10, atol=1e-13)
    assert np.abs(label_logits - 2.0 * rows).max() > 0.5


def test_a_step_is_taken_also_without_gradients() -> None:
    """Lightning may run a loss under no_grad, say in a test of a fitted module; tables then still follow the rule."""
    loss = attach(PencilLoss(warmup_epochs=0))
    with torch.no_grad():
        loss(torch.tensor(epochs(1)[0]), TARGET, index=INDEX, epoch=0)
    assert rows_of(loss, "label_logits")[INDEX].any()


def test_defaults() -> None:
    loss = PencilLoss()
    assert (loss.alpha, loss.beta, loss.label_lr, loss.scale) == (0.4, 0.1, 600.0, 10.0)
    assert (loss.warmup_epochs, loss.fixed_from_epoch, loss.form) == (70, 200, "code")
