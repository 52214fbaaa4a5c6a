import copy

import pytest
import torch
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.heads import LinearHead, MaskableHead


def test_checkpoints_are_those_of_a_plain_layer():
    head, plain = LinearHead(5, 3), nn.Linear(5, 3)
    head.edge_mask = torch.ones(3, 5)
    plain.load_state_dict(head.state_dict(), strict=True)
    head.load_state_dict(nn.Linear(5, 3).state_dict(), strict=True)
    assert [name for name, _ in head.named_parameters()] == ["weight", "bias"]
    assert not list(head.buffers())


@pytest.mark.parametrize("bias", [True, False])
def test_masked_forward_and_gradients(bias):
    head = LinearHead(5, 3, bias=bias).double()
    head.edge_mask = (torch.rand(3, 5) < 0.5).double()
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(7, 3, dtype=torch.float64)
    logits = head(x)
    (logits * upstream).sum().backward()
    masked = head.weight.detach() * head.edge_mask
    expected = torch.einsum("bi,oi->bo", x.detach(), masked) + (head.bias.detach() if bias else 0)
    torch.testing.assert_close(logits.detach(), expected)
    torch.testing.assert_close(head.weight.grad, torch.einsum("bo,bi->oi", upstream, x.detach()) * head.edge_mask)
    torch.testing.assert_close(x.grad, upstream @ masked)
    if bias:
        torch.testing.assert_close(head.bias.grad, upstream.sum(dim=0))


def test_mask_follows_the_parameters():
    head = LinearHead(5, 3)
    head.edge_mask = torch.ones(3, 5)
    assert head.double().edge_mask.dtype == torch.float64
    assert head.to("meta").edge_mask.device.type == "meta"


def test_deepcopy_has_its_own_mask():
    head = LinearHead(5, 3)
    head.edge_mask = torch.ones(3, 5)
    twin = copy.deepcopy(head)
    twin.edge_mask.zero_()
    assert head.edge_mask.sum() == 15


def test_scores_come_from_full_precision_and_refuse_unknown_names():
    assert LinearHead(5, 3).bfloat16().edge_scores().dtype == torch.float32
    assert not LinearHead(5, 3).edge_scores(torch.randn(4, 5)).requires_grad
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `score` to be 'std', but got 'loudness'.$"):
        LinearHead(5, 3).edge_scores(score="loudness")


def test_protocol():
    assert isinstance(LinearHead(2, 2), MaskableHead)
    assert not isinstance(nn.Linear(2, 2), MaskableHead)
