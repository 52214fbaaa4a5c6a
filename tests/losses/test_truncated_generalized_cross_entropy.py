from __future__ import annotations

import numpy as np
import torch

from lightning_noisy.losses import TruncatedGeneralizedCrossEntropy
from tests.losses.numpy_oracle import INDEX, SAMPLES, TARGET, at_label, attach, epochs, rows_of, softmax


def test_epochs_against_numpy() -> None:
    loss = attach(TruncatedGeneralizedCrossEntropy(q=0.6, k=0.4, warmup_epochs=3, every_n_epochs=2, reduction="none"))
    dropped, changes = np.zeros(SAMPLES), 0
    for epoch, logits in enumerate(epochs(12)):
        p_y = at_label(softmax(logits))
        actual = loss(torch.tensor(logits), TARGET, index=INDEX, epoch=epoch)
        if epoch in (3, 5, 7, 9, 11):
            changes += (dropped[INDEX] != (p_y <= 0.4)).any()
            dropped[INDEX] = p_y <= 0.4
        expected = (1 - dropped[INDEX]) * (0.4**0.6 - p_y**0.6) / 0.6
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-14)
        np.testing.assert_array_equal(rows_of(loss, "dropped"), dropped)
    assert changes > 2


def test_threshold_itself_is_dropped() -> None:
    loss = attach(TruncatedGeneralizedCrossEntropy(q=1.0, k=0.25, warmup_epochs=0, every_n_epochs=1))
    loss(torch.zeros(3, 4, dtype=torch.float64), TARGET, index=INDEX, epoch=0)
    assert rows_of(loss, "dropped")[INDEX].all()


def test_defaults_are_those_of_the_port() -> None:
    loss = TruncatedGeneralizedCrossEntropy()
    assert (loss.q, loss.k, loss.warmup_epochs, loss.every_n_epochs) == (0.7, 0.5, 39, 10)
    due = [e for e in range(80) if e >= loss.warmup_epochs and (e + 1) % loss.every_n_epochs == 0]
    assert due == [e for e in range(80) if e + 1 >= 40 and (e + 1) % 10 == 0]
