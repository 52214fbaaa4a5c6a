from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_noisy.functional.losses import shuffled_labels
from lightning_noisy.losses import PeerLoss
from tests.losses.numpy_oracle import INDEX, TARGET, at_label, epochs, softmax


@pytest.mark.parametrize("alpha", [0.0, 2.5])
def test_formula(alpha: float) -> None:
    loss, seen = PeerLoss(alpha, seed=3, reduction="none"), set()
    for epoch, logits in enumerate(epochs(5)):
        peers = shuffled_labels(TARGET, INDEX, 0x70656572, 3, epoch).numpy()
        seen.add(tuple(peers))
        p = softmax(logits)
        expected = -np.log(at_label(p) + 1e-5) + alpha * np.log(p[np.arange(3), peers] + 1e-5)
        np.testing.assert_allclose(loss(torch.tensor(logits), TARGET, index=INDEX, epoch=epoch), expected, rtol=1e-10)
    assert len(seen) == 2


def test_defaults_and_schedule() -> None:
    loss = PeerLoss()
    assert (loss.alpha, loss.eps, loss.reduction, loss.store_shapes(3)) == (1.0, 1e-5, "mean", {})
    assert list(loss.state_dict()) == ["seed"]
    logits = torch.tensor(epochs(1)[0])
    loss.alpha = 0.0
    expected = -np.log(at_label(softmax(logits.numpy())) + 1e-5).mean()
    assert loss(logits, TARGET, index=INDEX, epoch=0).item() == pytest.approx(expected, rel=1e-10)


def test_independent_labels_teach_nothing() -> None:
    """With alpha 1, the mean gradient over rings vanishes where all predictions are the same."""
    logits = torch.randn(1, 4, dtype=torch.float64).repeat(8, 1).requires_grad_()
    PeerLoss(1.0, seed=0, reduction="sum")(logits, torch.arange(8) % 4, index=torch.arange(8), epoch=0).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
