from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.data import EpochSampler, ShardedSampler


def dataset(count: int) -> TensorDataset:
    return TensorDataset(torch.zeros(count))


def epoch_of(count: int, world: int, epoch: int = 0, chosen: list[int] | None = None) -> list[list[int]]:
    """What each process visits."""
    samplers = [ShardedSampler(dataset(count), world, rank, seed=3) for rank in range(world)]
    for sampler in samplers:
        if chosen is not None:
            sampler.select(chosen)
        sampler.set_epoch(epoch)
    visits = [list(map(int, sampler)) for sampler in samplers]
    assert [len(visit) for visit in visits] == [len(sampler) for sampler in samplers]
    return visits


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 9))
def test_each_process_visits_its_own_samples_all_of_them_and_as_many_as_the_others(
    world: int, more: int, epoch: int
) -> None:
    count = world + more
    for rank, visits in enumerate(epoch_of(count, world, epoch)):
        own = list(range(rank, count, world))
        assert len(visits) == -(-count // world)
        assert sorted(visits[: len(own)]) == own
        assert visits[len(own) :] == visits[: len(visits) - len(own)], "filled up from its own beginning"


def test_order_is_another_one_in_each_epoch_and_that_of_the_plain_sampler_within_a_shard() -> None:
    plain = EpochSampler(dataset(31), 1, 0, seed=3)
    orders = []
    for epoch in range(3):
        plain.set_epoch(epoch)
        order, shards = list(map(int, plain)), epoch_of(31, 3, epoch)
        for rank, visits in enumerate(shards):
            wanted = [index for index in order if index % 3 == rank]
            assert visits[: len(wanted)] == wanted
        orders.append(shards[0])
        assert epoch_of(31, 1, epoch) == [order]
    assert orders[0] != orders[1] != orders[2]


@given(st.integers(1, 4), st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_a_selection_is_visited_by_those_whose_samples_it_has(world: int, chosen: list[int]) -> None:
    counts = [Counter(index for index in chosen if index % world == rank) for rank in range(world)]
    if not all(counts):
        with pytest.raises(NoisyLabelError, match="`indices` to be samples of each process") as caught:
            epoch_of(20, world, 1, chosen)
        assert "\n" not in str(caught.value)
        return
    longest = max(count.total() for count in counts)
    for visits, count in zip(epoch_of(20, world, 1, chosen), counts, strict=True):
        assert len(visits) == longest
        assert Counter(visits[: count.total()]) == count
        assert set(visits) == set(count)


def test_a_selection_can_be_given_up() -> None:
    sampler = ShardedSampler(dataset(10), 2, 1)
    sampler.select([1, 2])
    sampler.select(None)
    assert sorted(map(int, sampler)) == [1, 3, 5, 7, 9]


def test_refused() -> None:
    with pytest.raises(NoisyLabelError, match="`num_replicas` to be at most 3, the number of samples, but got 4"):
        ShardedSampler(dataset(3), 4, 0)
    with pytest.raises(NoisyLabelError, match="ShardedSampler cannot arrange batches, which would cross shards"):
        ShardedSampler(dataset(3), 2, 0).arrange([0, 1])
