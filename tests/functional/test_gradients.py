"""Selection of critical gradients, against brute force over all entries."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_noisy.functional.gradients import critical_entries, hinder_memorization_, kth_largest_

SHAPES = [(3, 4), (1, 1), (2, 3, 2, 2), (4, 1, 3, 3), (5, 2)]


def room(tensors, dtype=torch.float32):
    return torch.full((sum(tensor.numel() for tensor in tensors),), torch.nan, dtype=dtype)


def oracle(weights, gradients, rate):
    """Each entry on its own, in exact arithmetic, by the official code's words."""
    scores = [abs(Fraction(w) * Fraction(g)) for w, g in zip(weights, gradients, strict=True)]
    kept = max(1, math.floor((1 - Fraction(str(rate))) * len(scores)))
    threshold = sorted(scores, reverse=True)[kept - 1]
    return [float(g) * (1 - rate) if s >= threshold else 0.0 for s, g in zip(scores, gradients, strict=True)]


@given(st.integers(0, 99), st.integers(1, 10**9))
@example(78, 10**8)  # 0.22 * 1e8 falls more than 1e-9 short of the integer
def test_the_number_of_entries_is_that_of_the_rate_as_written(percent, n):
    assert critical_entries(n, percent / 100) == max(1, math.floor(Fraction(100 - percent, 100) * n))


def test_the_rate_that_binary_numbers_get_wrong():
    assert int((1 - 0.9) * 10) == 0
    assert critical_entries(10, 0.9) == 1
    assert critical_entries(1_000_000, 0.9) == 100_000
    assert critical_entries(7, 0.999) == 1


entries = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.5, 1e-30, 3e38, math.inf]), min_size=1, max_size=40)


@given(entries, st.data())
def test_kth_largest(values, data):
    k = data.draw(st.integers(1, len(values)))
    found = kth_largest_(torch.tensor(values, dtype=torch.float64), k)
    assert found.shape == ()
    assert found.item() == sorted(values, reverse=True)[k - 1]


def test_kth_largest_is_no_view_and_counts_nan_as_largest():
    values = torch.tensor([1.0, math.nan, 3.0, math.inf, 2.0])
    found = [kth_largest_(values, k) for k in range(1, 6)]
    values.fill_(9.0)
    assert found[0].isnan()
    assert [value.item() for value in found[1:]] == [math.inf, 3.0, 2.0, 1.0]


@given(
    st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.1, 0.2, 0.45, 0.5, 0.8, 0.9, 0.99]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 2**32 - 1),
)
def test_equals_brute_force_with_ties(shapes, rate, dtype, seed):
    """Small whole numbers: products are exact, and most of them tie."""
    draw = np.random.default_rng(seed)
    weights, gradients = (
        [torch.tensor(draw.integers(-4, 5, shape), dtype=dtype) for shape in shapes] for _ in range(2)
    )
    before = [weight.clone() for weight in weights]
    flat = [torch.cat([tensor.flatten() for tensor in tensors]).tolist() for tensors in (weights, gradients)]
    expected = oracle(*flat, rate)
    hinder_memorization_(weights, gradients, rate, room(weights, dtype))
    found = torch.cat([gradient.flatten() for gradient in gradients]).double()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


@given(st.integers(1, 400), st.integers(0, 99), st.integers(0, 2**32 - 1))
def test_equals_brute_force_without_ties(n, percent, seed):
    draw = np.random.default_rng(seed)
    weight, gradient = (torch.tensor(draw.normal(size=(1, n))) for _ in range(2))
    scores = (weight * gradient).abs().flatten()
    kept = max(1, math.floor(Fraction(100 - percent, 100) * n))
    before = gradient.clone()
    hinder_memorization_([weight], [gradient], percent / 100, room([weight], torch.float64))
    alive = (gradient != 0).flatten()
    assert alive.sum() == kept
    if kept < n:
        assert scores[alive].min() > scores[~alive].max()
    torch.testing.assert_close(gradient.flatten()[alive], (before * (1 - percent / 100)).flatten()[alive])


def test_tensors_compete_with_one_another():
    large, small = torch.full((2, 2), 3.0), torch.full((2, 1, 2, 2), 1.0)
    gradients = [torch.ones(2, 2), torch.ones(2, 1, 2, 2)]
    hinder_memorization_([large, small], gradients, 0.75, room(gradients))
    assert gradients[0].tolist() == [[0.25, 0.25], [0.25, 0.25]]  # 3 of 12 entries, and the fourth ties
    assert not gradients[1].any()


def test_half_precision_is_compared_in_single():
    """1.0078125^2 and 1.0 * 1.015625 are one number in bfloat16, and two in float32."""
    weight = torch.tensor([[1.0078125, 1.0]], dtype=torch.bfloat16)
    gradient = torch.tensor([[1.0078125, 1.015625]], dtype=torch.bfloat16)
    assert (weight * gradient).unique().numel() == 1
    hinder_memorization_([weight], [gradient], 0.5, room([weight]))
    assert gradient.dtype == torch.bfloat16
    assert (gradient != 0).tolist() == [[True, False]]


def test_any_memory_format():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, 2, 2, generator=generator), torch.randn(5, 6, generator=generator)]
    gradients = [torch.randn(tensor.shape, generator=generator) for tensor in weights]
    plain = [gradient.clone() for gradient in gradients]
    hinder_memorization_(weights, plain, 0.6, room(weights))
    strided = [gradients[0].to(memory_format=torch.channels_last), gradients[1].t().contiguous().t()]
    formats = [weights[0].to(memory_format=torch.channels_last), weights[1]]
    hinder_memorization_(formats, strided, 0.6, room(weights))
    assert all(torch.equal(a, b) for a, b in zip(plain, strided, strict=True))


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", [1.0, 0.0, -2.0])
def test_what_is_not_finite_stays_so(spoilt, weight):
    weights, gradients = torch.tensor([[weight, 1.0, 1.0, 1.0]]), torch.tensor([[spoilt, 1.0, 2.0, 3.0]])
    hinder_memorization_([weights], [gradients], 0.5, room([weights]))
    assert not gradients[0, 0].isfinite()
    assert gradients[0, 1:].isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_the_cpu_without_a_host_round_trip():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    gradients = [torch.randn(shape, generator=generator) for shape in SHAPES]
    there = [[tensor.cuda() for tensor in tensors] for tensors in (weights, gradients)]
    scratch = room(weights).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        hinder_memorization_(*there, 0.3, scratch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    hinder_memorization_(weights, gradients, 0.3, room(weights))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(gradients, there[1], strict=True))
