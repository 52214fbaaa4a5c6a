"""Masks against a float64 oracle that looks at every activation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_noisy.functional.masks import dropped_edges, edge_mask, node_mask
from lightning_noisy.heads import LinearHead


def oracle(features, weight, ratio, drop):
    """Rank the K edges of each input by the float64 spread of their activations x_bi W_oi; ties by output index.

    A feature that is constant in the batch has no spread; its edges rank by |W|, the limit of a vanishing spread.
    """
    x, w = features.astype(np.float64), weight.astype(np.float64)
    activations = x[:, None, :] * w[None, :, :]
    deviations = activations - activations.mean(axis=0)
    spread = np.sqrt((deviations**2).mean(axis=0))
    num_classes, num_features = w.shape
    mask = np.ones_like(w)
    for i in range(num_features):
        constant = (x[:, i] == x[0, i]).all()
        scores = np.abs(w[:, i]) if constant else spread[:, i]
        sign = 1 if drop == "unimportant" else -1
        ranked = sorted(range(num_classes), key=lambda o: (sign * scores[o], o))
        for o in ranked[: math.floor(Fraction(str(ratio)) * num_classes)]:
            mask[o, i] = 0
    return mask


@st.composite
def heads(draw):
    num_classes, num_features, batch = draw(st.integers(2, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        weight = generator.standard_normal((num_classes, num_features))
    else:
        weight = generator.integers(-2, 3, (num_classes, num_features)) / 2  # ties, zeros
    features = generator.integers(-3, 4, (batch, num_features)) / 4 * 2.0 ** draw(st.integers(-20, 20))
    dead = generator.random(num_features) < 0.3
    features[:, dead] = generator.integers(-1, 2, num_features)[dead]
    return features.astype(np.float32), weight.astype(np.float32)


@given(
    heads(), st.sampled_from([0.0, 0.1, 0.29, 0.3, 0.5, 0.7, 0.9, 0.99]), st.sampled_from(["unimportant", "important"])
)
@settings(max_examples=300)
def test_equals_the_oracle(head, ratio, drop):
    features, weight = head
    layer = LinearHead(weight.shape[1], weight.shape[0])
    layer.weight.data = torch.from_numpy(weight)
    mask = node_mask(layer.edge_scores(), ratio, drop)
    assert mask.dtype == torch.float32
    np.testing.assert_array_equal(mask.numpy(), oracle(features, weight, ratio, drop))


@given(heads())
@settings(max_examples=100)
def test_scores_are_the_spread_of_the_activations(head):
    features, weight = head
    layer = LinearHead(weight.shape[1], weight.shape[0])
    layer.weight.data = torch.from_numpy(weight)
    activations = features.astype(np.float64)[:, None, :] * weight.astype(np.float64)
    np.testing.assert_allclose(
        layer.edge_scores(torch.from_numpy(features)).numpy(), activations.std(axis=0), rtol=1e-5, atol=1e-30
    )


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 1000])
def test_exactly_the_floor_of_the_written_ratio(num_classes):
    for percent in range(100):
        ratio = percent / 100
        assert dropped_edges(num_classes, ratio) == math.floor(Fraction(percent, 100) * num_classes)
        mask = node_mask(torch.zeros(num_classes, 2), ratio)
        assert (mask == 0).sum(dim=0).tolist() == [dropped_edges(num_classes, ratio)] * 2


def test_large_heads_lose_exactly_the_floor_too():
    for num_edges in (21841 * 2048, 10**8, 10**9):
        for percent in range(100):
            assert dropped_edges(num_edges, percent / 100) == percent * num_edges // 100


@given(st.integers(0, 10**7 - 1))
@example(6_999_999)
def test_a_ratio_of_seven_digits_is_exact(digits):
    assert dropped_edges(10**7, digits / 10**7) == digits
    assert dropped_edges(10**9, digits / 10**7) == 100 * digits


@given(st.integers(2, 500), st.data())
def test_a_ratio_of_two_counts_is_exact(num_edges, data):
    dropped = data.draw(st.integers(0, num_edges - 1))
    assert dropped_edges(num_edges, dropped / num_edges) == dropped


def test_a_ratio_that_arithmetic_left_a_little_off_counts_as_what_it_means():
    assert dropped_edges(10, 1 - 0.3) == 7
    assert dropped_edges(10, 0.1 + 0.2) == 3
    assert dropped_edges(10, 0.7 - 1e-15) == 7
    assert dropped_edges(10, 0.699) == 6
    assert dropped_edges(10, 0.99999999) == 9


@st.composite
def awkward_scores(draw):
    """Scores (K, D) with ties, signed zeros, infinities and NaN."""
    values = st.sampled_from([-math.inf, -2.5, -0.0, 0.0, 1e-300, 1.0, 1.0 + 2**-52, 7.0, math.inf, math.nan])
    shape = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    flat = draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(flat).reshape(shape)


def stable_ranks(scores, drop):
    """Order in which a column's edges go: low scores first, NaN last, of equal ones the lower index."""
    sign = 1 if drop == "unimportant" else -1
    return sorted(
        range(len(scores)), key=lambda o: (math.isnan(scores[o]), 0 if math.isnan(scores[o]) else sign * scores[o], o)
    )


@given(awkward_scores(), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.sampled_from(["unimportant", "important"]))
@settings(max_examples=200)
def test_ties_infinities_and_nan_have_an_order(scores, ratio, drop):
    expected = np.ones_like(scores)
    for i in range(scores.shape[1]):
        expected[stable_ranks(scores[:, i], drop)[: math.floor(Fraction(str(ratio)) * len(scores))], i] = 0
    np.testing.assert_array_equal(node_mask(torch.from_numpy(scores), ratio, drop).numpy(), expected)

    flat = np.ones(scores.size)
    flat[stable_ranks(scores.reshape(-1), drop)[: math.floor(Fraction(str(ratio)) * scores.size)]] = 0
    transposed = torch.from_numpy(scores.T.copy()).t()  # another layout in memory
    for tensor in (torch.from_numpy(scores), transposed):
        np.testing.assert_array_equal(edge_mask(tensor, ratio, drop).numpy(), flat.reshape(scores.shape))


def test_whole_inputs_may_go_from_a_head_but_not_node_by_node():
    scores = torch.tensor([[1.0, 9.0], [2.0, 8.0]])
    assert edge_mask(scores, 0.5).tolist() == [[0, 1], [0, 1]]
    assert node_mask(scores, 0.5).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_masks_take_any_scores_and_change_none(dtype):
    scores = torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 2.0], [2.0, 3.0]], dtype=dtype, requires_grad=True)
    before = scores.detach().clone()
    for mask in (node_mask(scores, 0.5), edge_mask(scores, 0.5)):
        assert mask.dtype == dtype
        assert not mask.requires_grad
        assert mask.sum() == 4
    assert node_mask(scores, 0.5).tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    assert torch.equal(scores.detach(), before)


def test_of_equal_scores_the_lower_index_goes_first():
    scores = torch.tensor([[1.0], [0.0], [0.0], [0.0], [1.0]])
    assert node_mask(scores, 0.4).squeeze(1).tolist() == [1, 0, 0, 1, 1]
    assert node_mask(scores, 0.6, "important").squeeze(1).tolist() == [0, 0, 1, 1, 0]


def test_one_tie_among_thousands_in_half_precision():
    """To float16 4095 and 4096 are the same number of edges."""
    scores = torch.stack([torch.zeros(4096), torch.ones(4096)]).half()
    scores[:, 7] = 1
    assert torch.equal(node_mask(scores, 0.5), torch.stack([torch.zeros(4096), torch.ones(4096)]).half())

    scores = torch.tensor([0.0] * 4095 + [1.0, 1.0] + [2.0] * 4095).half().view(2, 4096)
    assert torch.equal(edge_mask(scores, 0.5).view(-1), torch.tensor([0.0] * 4096 + [1.0] * 4096).half())


def test_ties_among_many_classes():
    scores = torch.tensor(list(itertools.chain.from_iterable([[2.0], [1.0]] * 500))).unsqueeze(1)
    kept = node_mask(scores, 0.25).squeeze(1)
    expected = torch.ones(1000)
    expected[1:500:2] = 0
    assert torch.equal(kept, expected)
