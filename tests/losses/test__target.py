from __future__ import annotations

import pytest
import torch

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.losses._target import check_target


class Hard(NoisyLabelLoss):
    pass


class Soft(NoisyLabelLoss):
    soft_targets = True


LOGITS = torch.zeros(3, 3)  # square, so that a wrong shape could broadcast
LABELS, ROWS = torch.tensor([0, 1, 2]), torch.eye(3)


@pytest.mark.parametrize(
    ("loss", "target"), [(Hard(), LABELS), (Soft(), LABELS), (Soft(), ROWS), (Soft(), ROWS.half())]
)
def test_accepted(loss: NoisyLabelLoss, target: torch.Tensor) -> None:
    check_target(loss, LOGITS, target)


@pytest.mark.parametrize("loss", [Hard(), Soft()])
@pytest.mark.parametrize(
    "target", [LABELS.float(), LABELS.int(), LABELS[:2], LABELS[:, None], ROWS.long(), ROWS[:, :2], ROWS[:2]]
)
def test_refused(loss: NoisyLabelLoss, target: torch.Tensor) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        check_target(loss, LOGITS, target)
    wanted = "int64 labels (B,)" + (" or floating-point targets (B, K)" if loss.soft_targets else "")
    assert str(caught.value) == (
        f"{type(loss).__name__} expects {wanted} for its logits of shape (3, 3), but got a {target.dtype} target of "
        f"shape {tuple(target.shape)}."
    )


def test_soft_target_names_the_way_out() -> None:
    with pytest.raises(NoisyLabelError) as caught:
        check_target(Hard(), LOGITS, ROWS)
    assert str(caught.value) == (
        "Hard expects int64 labels (B,) for its logits of shape (3, 3), but got a torch.float32 target of shape (3, "
        "3): give labels (`target.argmax(dim=1)`) or use a loss with `soft_targets = True`."
    )
