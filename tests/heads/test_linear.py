"""Heads with one term per edge against torch's own layers and float64 formulas; dropout by its statistics."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_noisy import NoisyLabelError
from lightning_noisy.heads import CosineHead, DropConnectHead, DropoutHead, LinearHead, MaskableHead

DROPOUTS = [DropoutHead, DropConnectHead]


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


def test_protocol():
    assert isinstance(LinearHead(2, 2), MaskableHead)
    assert not isinstance(nn.Linear(2, 2), MaskableHead)


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_heads_are_linear_layers_in_evaluation(kind):
    head, plain, x = kind(5, 3, ratio=0.9), nn.Linear(5, 3), torch.randn(7, 5)
    head.load_state_dict(plain.state_dict(), strict=True)
    head.eval()
    assert torch.equal(head(x), plain(x))
    assert kind(5, 3).ratio == 0.5
    head.train()
    assert not torch.equal(head(x), plain(x))


def dropped_products(head, rows):
    """Terms of the logits (B, K, D) of features of one, told apart by weights that are powers of 4."""
    weight = 4.0 ** torch.arange(head.weight.numel(), dtype=torch.float64).view_as(head.weight)
    head.double().weight.data = weight
    head.bias.data.zero_()
    logits = head(torch.ones(rows, head.in_features, dtype=torch.float64)) * (1 - head.ratio)
    return logits.detach().long().unsqueeze(2) // weight.long() % 4


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_heads_drop_the_share_and_scale_the_rest(kind, ratio):
    torch.manual_seed(0)
    kept = torch.stack([dropped_products(kind(4, 3, ratio), 8) for _ in range(300)])
    assert ((kept == 0) | (kept == 1)).all()  # whole weights or nothing, each divided by 1 - ratio
    draws = kept[:, :, 0] if kind is DropoutHead else kept[:, 0]
    assert abs(draws.double().mean() - (1 - ratio)) < 5 * math.sqrt(ratio * (1 - ratio) / draws.numel())
    flat = draws.flatten(1).double()
    correlation = np.corrcoef(flat.numpy().T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 0.3
    if kind is DropoutHead:  # a feature goes from all classes, in one sample
        assert (kept == kept[:, :, :1]).all()
        assert (kept[:, :1] != kept[:, 1:]).any()
    else:  # an edge goes from all samples
        assert (kept == kept[:, :1]).all()
        assert (kept[:, :, :1] != kept[:, :, 1:]).any()


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_never_drops_the_bias_and_zero_drops_nothing(kind):
    head, x = kind(5, 3, ratio=0.99), torch.randn(7, 5)
    head.weight.data.zero_()
    assert torch.equal(head(x), head.bias.expand(7, 3))
    head, plain = kind(5, 3, ratio=0.0), nn.Linear(5, 3)
    head.load_state_dict(plain.state_dict())
    assert torch.equal(head(x), plain(x))


@pytest.mark.parametrize("kind", DROPOUTS)
@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan])
def test_dropout_refuses_other_ratios(kind, ratio):
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `ratio` to be a float in \[0, 1\), but got .*\.$"):
        kind(5, 3, ratio=ratio)


def test_a_mask_and_dropped_edges_meet():
    head, x = DropConnectHead(5, 3), torch.randn(7, 5)
    head.edge_mask = torch.zeros(3, 5)
    head.edge_mask[1] = 1.0
    logits = head(x)
    assert torch.equal(logits[:, [0, 2]], head.bias[[0, 2]].expand(7, 2))
    assert not torch.equal(logits[:, 1], head.bias[1].expand(7))


@pytest.mark.parametrize("temperature", [8.0, 0.5])
def test_cosine_head_gives_scaled_cosines(temperature):
    head = CosineHead(5, 3, temperature=temperature).double()
    x = 100 * torch.randn(7, 5, dtype=torch.float64)
    expected = temperature * F.cosine_similarity(x.unsqueeze(1), head.weight.unsqueeze(0), dim=2)
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(3 * x), expected)
    assert set(head.state_dict()) == {"weight"}
    assert head.weight.is_leaf
    assert head.weight.requires_grad
    assert CosineHead(5, 3).temperature == 8


def test_cosine_head_masks_after_it_normalizes():
    torch.manual_seed(0)
    head = CosineHead(5, 3).double()
    mask = head.edge_mask = (torch.rand(3, 5) < 0.5).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    weight = head.weight.detach()
    share = (x / x.norm(dim=1, keepdim=True)).unsqueeze(1) * (weight / weight.norm(dim=1, keepdim=True))
    torch.testing.assert_close(head(x).detach(), 8 * (share * mask).sum(dim=2))


def test_gradient_of_a_masked_cosine_head_goes_through_the_length_alone():
    torch.manual_seed(0)
    head = CosineHead(4, 3).double()
    mask = head.edge_mask = torch.tensor([[1.0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0]]).double()
    x, upstream = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    (head(x) * upstream).sum().backward()
    weight, length = head.weight.detach(), head.weight.detach().norm(dim=1, keepdim=True)
    direct = 8 * (upstream.t() @ (x / x.norm(dim=1, keepdim=True))) * mask
    unit = weight / length
    torch.testing.assert_close(head.weight.grad, (direct - unit * (direct * unit).sum(dim=1, keepdim=True)) / length)
    assert (head.weight.grad[1] == 0).all()


def test_cosine_head_of_nothing_is_zero_and_starts_as_a_linear_layer_does():
    head = CosineHead(64, 50)
    assert (head(torch.zeros(2, 64)) == 0).all()
    assert 0.95 / 8 < head.weight.abs().max() <= 1 / 8
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `temperature` to be a float of more than 0, but"):
        CosineHead(5, 3, temperature=0.0)
    assert "in_features=5, out_features=3, temperature=8.0" in repr(CosineHead(5, 3))
