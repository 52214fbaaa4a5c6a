import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional import random
from lightning_noisy.functional.random import hash_bits, hash_normals, hash_seed, hash_uniform, sample_categorical

WORD = 2**64
GAMMA = 0x9E3779B97F4A7C15
ONE_BELOW = 1 - 2**-53


def splitmix(state):
    """The next output of SplitMix64 in Python's unbounded integers."""
    z = (state + GAMMA) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def expected_bits(*keys):
    bits = 0
    for key in keys:
        bits = splitmix(bits ^ (key % WORD))
    return bits


def chi_square(counts, expected):
    """Standardized: about normal for many cells."""
    counts, expected = torch.as_tensor(counts).double(), torch.as_tensor(expected).double()
    degrees = len(counts) - 1
    return (float(((counts - expected) ** 2 / expected).sum()) - degrees) / math.sqrt(2 * degrees)


def test_hash_bits_gives_the_published_outputs_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + step * GAMMA) % WORD for step in range(4)]

    assert [int(hash_bits(state)) % WORD for state in states] == published


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4))
def test_hash_bits_equals_big_integer_arithmetic(keys):
    assert int(hash_bits(*keys)) % WORD == expected_bits(*keys)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_tensor_keys_hash_like_python_keys(keys):
    tensors = [torch.tensor([key]) for key in keys]

    assert hash_bits(*tensors).tolist() == [int(hash_bits(*keys))]
    assert hash_bits(keys[0], *tensors[1:]).flatten().tolist() == [int(hash_bits(*keys))]


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4))
def test_hash_seed_is_the_upper_63_bits(keys):
    assert hash_seed(*keys) == expected_bits(*keys) >> 1
    torch.Generator().manual_seed(hash_seed(*keys))


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4))
def test_hash_uniform_is_the_upper_53_bits(keys):
    uniform = hash_uniform(*keys)

    assert uniform.dtype == torch.float64
    assert float(uniform) == (expected_bits(*keys) >> 11) * 2**-53
    assert 0 <= float(uniform) < 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("make", [lambda key: key, lambda key: key[2]])
def test_keys_of_every_integer_type_hash_alike(dtype, make):
    key = torch.arange(100)

    bits = hash_bits(7, make(key.to(dtype)))

    assert bits.dtype == torch.int64
    assert torch.equal(bits, hash_bits(7, make(key)))


@pytest.mark.parametrize("keys", [(5, torch.arange(9) - 4), (torch.arange(3).view(3, 1), 2**63, torch.arange(4)), (7,)])
def test_other_devices_hash_alike(keys, monkeypatch):
    bits = hash_bits(*keys)
    monkeypatch.setattr(random, "_CPU", torch.device("meta"))

    assert torch.equal(hash_bits(*keys), bits)


def test_a_floating_point_key_is_refused():
    with pytest.raises(NoisyLabelError, match=r"^Expected the keys of a draw to be integers, but got torch\.float32: "):
        hash_bits(0, torch.rand(3))


def test_keys_broadcast():
    seeds, index = torch.arange(3).unsqueeze(1), torch.arange(5)

    bits = hash_bits(seeds, 9, index)

    assert bits.shape == (3, 5)
    assert bits.tolist() == [[int(hash_bits(seed, 9, i)) for i in range(5)] for seed in range(3)]


def test_a_draw_does_not_depend_on_order_or_batch():
    index = torch.arange(1000)
    whole = hash_uniform(3, 1, index)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))

    assert torch.equal(hash_uniform(3, 1, index[order]), whole[order])
    assert torch.equal(torch.cat([hash_uniform(3, 1, part) for part in index.split(7)]), whole)


def test_hashing_leaves_the_global_stream_and_the_keys_alone():
    state, key = torch.get_rng_state(), torch.arange(4)

    hash_bits(1, key)

    assert torch.equal(torch.get_rng_state(), state)
    assert key.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 6, 7])
def test_normals_are_those_of_box_and_muller(count):
    index = torch.tensor([3, 70_000, 3])
    found, pairs = hash_normals(count, 11, index), -(-count // 2)
    for row, key in zip(found, index.tolist(), strict=True):
        words = [expected_bits(expected_bits(11, key), j) for j in range(pairs)]
        radius = [math.sqrt(-2 * math.log(((word >> 40) + 1) / 2**24)) for word in words]
        angle = [2 * math.pi * (word >> 8 & 2**24 - 1) / 2**24 for word in words]
        pairwise = [r * f(a) for f in (math.cos, math.sin) for r, a in zip(radius, angle, strict=True)]
        assert row.tolist() == pytest.approx(pairwise[:count], abs=1e-5)


def test_normals_are_normal_and_uncorrelated():
    z = hash_normals(9, 5, torch.arange(40_000))
    assert stats.kstest(z.numpy().ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(z.T) - np.eye(9)
    assert np.abs(correlations).max() < 5 / math.sqrt(len(z))


def test_the_order_of_keys_counts():
    assert len({int(hash_bits(*keys)) for keys in ((1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (3,), (1,))}) == 6


def test_consecutive_keys_do_not_collide():
    assert len(hash_bits(torch.arange(300).unsqueeze(1), torch.arange(300)).unique()) == 300 * 300


@pytest.mark.parametrize("keys", [(0,), (1, 2), (-5, 2**63)])
def test_draws_of_consecutive_indices_are_uniform(keys):
    cells = (hash_uniform(*keys, torch.arange(100_000)) * 1000).long()

    assert abs(chi_square(cells.bincount(minlength=1000), torch.full((1000,), 100.0))) < 4


def test_draws_of_consecutive_seeds_are_uniform():
    cells = (hash_uniform(torch.arange(100_000), 1, 17) * 1000).long()

    assert abs(chi_square(cells.bincount(minlength=1000), torch.full((1000,), 100.0))) < 4


def test_each_bit_is_fair():
    bits = hash_bits(11, torch.arange(100_000))
    ones = torch.stack([(bits >> place & 1).double().mean() for place in range(64)])

    assert ((ones - 0.5).abs() < 5 * 0.5 / math.sqrt(100_000)).all()


def test_distinct_streams_and_neighbors_are_uncorrelated():
    index = torch.arange(100_000)
    draws = torch.stack([hash_uniform(*keys, index) for keys in ((0, 0), (0, 1), (1, 0), (2, 0), (-1, 0))])
    shifted = hash_uniform(0, 0, index + 1)

    correlation = torch.corrcoef(torch.cat([draws, shifted.unsqueeze(0)]))

    assert (correlation - torch.eye(6)).abs().max() < 5 / math.sqrt(100_000)


def brute_force(weights, uniform):
    """The definition, class by class in Python's floats."""
    total = 0.0
    for weight in weights:
        total += weight
    threshold, running, drawn = uniform * total, 0.0, None
    for label, weight in enumerate(weights):
        running += weight
        if weight > 0:
            drawn = label
            if running > threshold:
                return label
    return drawn


weight = st.one_of(st.just(0.0), st.floats(2**-20, 2**10), st.floats(0, 1))
rows = st.integers(1, 8).flatmap(
    lambda classes: st.lists(st.lists(weight, min_size=classes, max_size=classes).filter(any), min_size=1, max_size=5)
)
draw = st.one_of(st.sampled_from([0.0, ONE_BELOW]), st.integers(0, 2**53 - 1).map(lambda bits: bits * 2**-53))


@settings(max_examples=300)
@given(rows, st.data())
def test_sample_categorical_equals_brute_force(weights, data):
    uniform = [data.draw(draw) for _ in weights]

    drawn = sample_categorical(torch.tensor(weights, dtype=torch.float64), torch.tensor(uniform, dtype=torch.float64))

    assert drawn.dtype == torch.int64
    assert drawn.tolist() == [brute_force(w, u) for w, u in zip(weights, uniform, strict=True)]


@pytest.mark.parametrize("uniform", [0.0, 0.5, ONE_BELOW])
@pytest.mark.parametrize("scale", [1.0, 1 / 3, 1e-300, 1e300, 5e-324])
def test_a_class_of_weight_zero_is_never_drawn(uniform, scale):
    weights = torch.tensor([[0, 0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]).double() * scale

    drawn = sample_categorical(weights, torch.full((3,), uniform, dtype=torch.float64))

    assert drawn.tolist() == [4 if uniform > 0.4 else 2, 0, 6]


def test_a_float32_draw_that_rounds_to_one_gives_the_last_class_with_weight():
    assert sample_categorical(torch.tensor([[0.3, 0.7, 0.0]]), torch.tensor([1.0])).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_frequencies_follow_weights_of_every_type(dtype):
    weights = torch.tensor([0, 3, 1, 0, 8, 4, 0]).to(dtype)
    draws = hash_uniform(5, torch.arange(100_000))

    counts = sample_categorical(weights.expand(100_000, 7), draws).bincount(minlength=7)

    assert counts[[0, 3, 6]].tolist() == [0, 0, 0]
    assert chi_square(counts[[1, 2, 4, 5]], torch.tensor([3, 1, 8, 4]) / 16 * 100_000) < 4


def test_float16_weights_are_summed_in_float64():
    weights = torch.ones(1, 5000, dtype=torch.float16)  # a float16 sum would stop at 2048

    assert sample_categorical(weights, torch.tensor([ONE_BELOW], dtype=torch.float64)).tolist() == [4999]
    assert sample_categorical(weights, torch.tensor([0.5], dtype=torch.float64)).tolist() == [2500]


@pytest.fixture
def warn_always():
    torch.set_warn_always(True)  # torch gives some warnings once per process
    yield
    torch.set_warn_always(False)


@pytest.mark.usefixtures("warn_always")
def test_rows_of_any_layout_and_number_are_taken_without_a_warning(recwarn):
    weights, uniform = torch.rand(4, 3).double(), torch.rand(3).double()

    assert torch.equal(sample_categorical(weights.t(), uniform), sample_categorical(weights.t().contiguous(), uniform))
    assert sample_categorical(torch.ones(0, 3), torch.ones(0)).shape == (0,)
    assert sample_categorical(torch.ones(2, 1), torch.tensor([0.0, 0.9])).tolist() == [0, 0]
    assert not recwarn.list
