import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_noisy.data import BalancedSampler, EpochSampler
from lightning_noisy.data.image_datasets import TrainingDataset
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.errors import NoisyLabelError

quick = settings(max_examples=80)
labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


def sampler(targets, size, epoch=0, seed=0, world=1, rank=0):
    made = BalancedSampler(targets, targets, size, world, rank, seed)
    made.set_epoch(epoch)
    return made


def one_by_one(targets, size, epoch, seed):
    """The published loop: go through the shuffled samples, take one while its class and the whole have too few."""
    whole = EpochSampler(targets, seed=seed)
    whole.set_epoch(epoch)
    classes = len(set(targets.tolist()))
    taken, counts = [], dict.fromkeys(targets.tolist(), 0)
    for index in whole:
        label = int(targets[index])
        if counts[label] < size / classes and len(taken) < size:
            taken.append(index)
            counts[label] += 1
    return taken


@given(labels, st.floats(0, 1), st.integers(0, 3), st.integers(0, 9))
@quick
def test_epochs_are_those_of_the_published_loop(targets, share, epoch, seed):
    size = max(1, round(share * len(targets)))
    expected = one_by_one(targets, size, epoch, seed)
    made = sampler(targets, size, epoch, seed)

    assert [(key, key.epoch) for key in made] == [(index, epoch) for index in expected]
    assert len(made) == len(expected)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
@quick
def test_processes_share_the_batches_of_one(world, per_process, batches, seed):
    size = world * per_process * batches
    targets = torch.arange(40) % 5
    if size > 40:
        return
    single = list(sampler(targets, size, 1, seed))
    ranks = [list(sampler(targets, size, 1, seed, world, rank)) for rank in range(world)]
    for b in range(batches):
        union = list(itertools.chain(*(rank[b * per_process : (b + 1) * per_process] for rank in ranks)))
        assert sorted(union) == sorted(single[b * world * per_process : (b + 1) * world * per_process])


@given(labels, st.floats(0, 1), st.integers(1, 4), st.integers(0, 3))
@quick
def test_where_samples_do_not_divide_ranks_are_as_long(targets, share, world, epoch):
    size = max(1, round(share * len(targets)))
    single = set(sampler(targets, size, epoch))
    ranks = [list(sampler(targets, size, epoch, 0, world, rank)) for rank in range(world)]

    assert len({len(rank) for rank in ranks}) == 1
    assert {index for rank in ranks for index in rank} == single


def test_epochs_differ_and_classes_do_not():
    targets = (torch.arange(100) % 10 == 0).long()  # 90 and 10
    epochs = [set(sampler(targets, 12, epoch)) for epoch in range(8)]

    assert all(targets[list(epoch)].tolist().count(1) == 6 for epoch in epochs)
    assert all(a != b for a, b in itertools.combinations(epochs, 2))
    assert len(set().union(*epochs)) > 40
    assert set(sampler(targets, 12, 0, seed=1)) != epochs[0]


def test_a_scarce_class_shortens_the_epoch():
    targets = torch.tensor([0] * 20 + [1] * 3)
    made = sampler(targets, 20)

    assert sorted(targets[index].item() for index in made) == [0] * 10 + [1] * 3
    assert made.size == len(made) == 13


@pytest.mark.parametrize("size", [0, 11])
def test_a_size_outside_its_range_is_refused(size):
    with pytest.raises(NoisyLabelError, match=rf"`size` to be an int in \[1, 10\], the samples, but got {size}"):
        sampler(torch.zeros(10, dtype=torch.int64), size)


def batches_of(loader, epoch):
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    return [batch[2].tolist() for batch in iterator]


@pytest.mark.parametrize("stop", range(5))
def test_a_loader_goes_on_inside_an_epoch(stop):
    targets = torch.arange(50) % 3
    images = torch.arange(50.0)
    dataset = TrainingDataset(images.__getitem__, targets, lambda image: image)

    def fresh():
        return ResumableLoader(dataset, sampler=BalancedSampler(dataset, targets, 15, 1, 0, 3), batch_size=4)

    complete, after = batches_of(fresh(), 2), batches_of(fresh(), 3)
    loader = fresh()
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    seen = [batch[2].tolist() for batch in itertools.islice(iterator, stop)]
    resumed = fresh()
    resumed.load_state_dict(loader.state_dict())

    assert len(complete) == len(resumed) == 4
    assert seen == complete[:stop]
    if stop < 4:
        assert batches_of(resumed, 2) == complete[stop:]
    assert batches_of(resumed, 3) == after
