import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy import NoisyLabelError
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization
from lightning_noisy.losses.soft_losses import soft_losses

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])
ROWS = F.one_hot(LABELS, 3).double()


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), DynamicsAwareLoss(0.7, 0.5)])
def test_rows_that_are_labels_give_the_criterions_own_losses_and_mixed_ones_are_no_call(criterion):
    criterion.register_forward_pre_hook(lambda *_: pytest.fail("a callback would see it"))
    losses = soft_losses(criterion, LOGITS, ROWS)
    assert losses.shape == (4,)
    other = type(criterion)() if isinstance(criterion, nn.CrossEntropyLoss) else DynamicsAwareLoss(0.7, 0.5)
    torch.testing.assert_close(losses.mean(), other(LOGITS, LABELS))
    half = soft_losses(criterion, LOGITS, (ROWS + ROWS.flip(0)) / 2)
    if isinstance(criterion, nn.CrossEntropyLoss):
        torch.testing.assert_close(half, (losses + F.cross_entropy(LOGITS, LABELS.flip(0), reduction="none")) / 2)


@pytest.mark.parametrize("criterion", [nn.NLLLoss(), EarlyLearningRegularization()])
def test_what_takes_no_soft_targets_alone_is_refused(criterion):
    message = rf"^Mixed targets need a loss of logits and soft targets alone, but {type(criterion).__name__} is none"
    with pytest.raises(NoisyLabelError, match=message):
        soft_losses(criterion, LOGITS, ROWS)
