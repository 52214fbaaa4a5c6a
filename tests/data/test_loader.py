import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset

from lightning_noisy.data.epoch_index import at_epoch
from lightning_noisy.data.image_datasets import EvaluationDataset, TrainingDataset
from lightning_noisy.data.indexed import IndexedDataset
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.data.samplers import EpochSampler, EvaluationSampler
from lightning_noisy.errors import NoisyLabelError

quick = settings(max_examples=60)


def jitter(image):
    """As random as a transform can be."""
    return image + torch.rand(())


def make_dataset(num_samples, transform=jitter, seed=0):
    images = torch.arange(num_samples).double() * 10
    return TrainingDataset(images.__getitem__, torch.arange(num_samples) * 3, transform, seed)


def order(num_samples, epoch=0, seed=0, world=1, rank=0):
    sampler = EpochSampler(range(num_samples), world, rank, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


# EpochSampler


def test_the_order_is_a_function_of_seed_and_epoch():
    whole = order(50, epoch=3, seed=7)
    torch.manual_seed(99)
    sampler = EpochSampler(range(50), seed=7)
    for epoch in (5, 0, 3):
        sampler.set_epoch(epoch)
        list(sampler)

    assert list(sampler) == list(sampler) == whole
    assert sorted(whole) == list(range(50))
    others = [order(50, 4, 7), order(50, 3, 8), order(50, 0, 7), order(50, 3, 0)]
    assert all(other != whole for other in others)
    assert whole != list(range(50))


def test_the_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    order(50)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("epoch", [0, 3])
def test_keys_carry_the_epoch(epoch):
    assert {key.epoch for key in order(9, epoch)} == {epoch}


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 9))
@quick
def test_processes_share_the_batches_of_one(world, per_process, batches, epoch, seed):
    batch = world * per_process
    num_samples = batch * batches
    single = order(num_samples, epoch, seed)
    ranks = [order(num_samples, epoch, seed, world, rank) for rank in range(world)]

    for b in range(batches):
        union = [i for rank in ranks for i in rank[b * per_process : (b + 1) * per_process]]
        assert sorted(union) == sorted(single[b * batch : (b + 1) * batch])


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 3))
@quick
def test_where_samples_do_not_divide_some_are_repeated_and_none_is_missing(num_samples, world, epoch):
    ranks = [order(num_samples, epoch, 0, world, rank) for rank in range(world)]
    union = list(itertools.chain(*ranks))

    assert {len(rank) for rank in ranks} == {-(-num_samples // world)}
    assert set(union) == set(range(num_samples))
    if num_samples >= world:
        assert max(union.count(i) for i in union) <= 2


def test_a_start_inside_an_epoch_passes_over_its_samples():
    whole = order(9, 2, world=2, rank=1)
    sampler = EpochSampler(range(9), 2, 1)
    sampler.set_epoch(2)
    sampler.skip = 3

    sampler.set_epoch(2)
    assert list(sampler) == whole[3:]
    assert len(sampler) == len(whole)
    assert list(sampler) == whole
    sampler.skip = 3
    sampler.set_epoch(3)
    assert list(sampler) == order(9, 3, world=2, rank=1)
    sampler.set_epoch(2)
    assert list(sampler) == whole


# EvaluationSampler


@given(st.integers(1, 40), st.integers(1, 9))
@quick
def test_every_sample_is_evaluated_once(num_samples, world):
    samplers = [EvaluationSampler(range(num_samples), world, rank) for rank in range(world)]
    parts = [list(sampler) for sampler in samplers]

    assert sorted(itertools.chain(*parts)) == list(range(num_samples))
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == [sorted(part) for part in parts]


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_evaluation_order_has_no_epoch(epoch):
    sampler = EvaluationSampler(range(7), 2, 1)
    sampler.set_epoch(epoch)
    assert list(sampler) == [1, 3, 5]


# ResumableLoader


def make_loader(dataset, batch_size, world=1, rank=0, seed=0, **options):
    sampler = EpochSampler(dataset, world, rank, seed)
    return ResumableLoader(dataset, sampler=sampler, batch_size=batch_size, **options)


def epoch_of(loader, epoch):
    """As Lightning does it: the iterator first, the epoch afterwards."""
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    return [[part.tolist() for part in batch] for batch in iterator]


def begin(loader, epoch, batches):
    """Stop inside an epoch."""
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    seen = [[part.tolist() for part in batch] for batch in itertools.islice(iterator, batches)]
    return seen, loader.state_dict()


@given(st.integers(1, 25), st.integers(1, 8), st.integers(1, 3), st.integers(0, 3), st.integers(0, 9), st.floats(0, 1))
@quick
def test_a_fresh_loader_yields_the_remaining_batches(num_samples, batch_size, world, epoch, seed, share):
    dataset = make_dataset(num_samples)
    rank = world - 1

    def fresh():
        return make_loader(dataset, batch_size, world, rank, seed)

    whole, after = fresh(), epoch_of(fresh(), epoch + 1)
    batches = round(share * len(whole))
    seen, state = begin(whole, epoch, batches)
    complete = epoch_of(fresh(), epoch)
    resumed = fresh()
    resumed.load_state_dict(state)

    assert seen == complete[:batches]
    assert len(resumed) == len(complete)
    assert resumed.state_dict() == state
    assert epoch_of(resumed, epoch) == complete[batches:]
    assert resumed.state_dict() == {**state, "batches": len(complete)}
    assert epoch_of(resumed, epoch) == complete
    assert epoch_of(resumed, epoch + 1) == after


@given(st.integers(0, 4), st.integers(0, 3))
@quick
def test_a_resumed_loader_can_be_saved_again(first, second):
    dataset = make_dataset(22)
    complete = epoch_of(make_loader(dataset, 3), 1)
    _, state = begin(make_loader(dataset, 3), 1, first)
    resumed = make_loader(dataset, 3)
    resumed.load_state_dict(state)
    _, state = begin(resumed, 1, second)
    again = make_loader(dataset, 3)
    again.load_state_dict(state)

    assert epoch_of(again, 1) == complete[first + second :]


def test_workers_that_persist_know_the_epoch_and_prefetch_without_a_trace():
    dataset = make_dataset(22)
    complete = [epoch_of(make_loader(dataset, 3), epoch) for epoch in range(3)]
    options = {"num_workers": 2, "persistent_workers": True}
    loader, resumed = make_loader(dataset, 3, **options), make_loader(dataset, 3, **options)

    assert epoch_of(loader, 0) == complete[0]
    seen, state = begin(loader, 1, 2)
    resumed.load_state_dict(state)

    assert state["batches"] == 2
    assert seen == complete[1][:2]
    assert epoch_of(resumed, 1) == complete[1][2:]
    assert epoch_of(resumed, 2) == complete[2]


def test_after_a_complete_epoch_the_next_one_is_full():
    dataset = make_dataset(10)
    loader, fresh = make_loader(dataset, 4), make_loader(dataset, 4)
    epoch_of(loader, 2)

    assert loader.state_dict()["batches"] == 3
    fresh.load_state_dict(loader.state_dict())
    assert fresh.state_dict() == loader.state_dict()
    assert epoch_of(fresh, 2) == []
    assert epoch_of(fresh, 3) == epoch_of(make_loader(dataset, 4), 3)


def test_an_epoch_that_was_cut_short_leaves_no_position_in_the_next():
    """As under `limit_train_batches`, with a checkpoint at the start of an epoch."""
    dataset = make_dataset(12)
    loader, fresh = make_loader(dataset, 4), make_loader(dataset, 4)
    begin(loader, 0, 2)
    loader.sampler.set_epoch(1)
    fresh.load_state_dict(loader.state_dict())

    assert epoch_of(fresh, 1) == epoch_of(make_loader(dataset, 4), 1)


def test_the_position_is_plain_values():
    _, state = begin(make_loader(make_dataset(10), 4, world=2, rank=1, seed=5), 3, 1)

    plain = {"epoch": 3, "batches": 1, "batch_size": 4, "processes": 2, "seed": 5}
    assert state == {**plain, "selection": None, "arranged": False, "waiting": []}
    assert {type(state[name]) for name in plain} == {int}


CHANGES = {"batch_size": (4, 3), "processes": (1, 2), "seed": (0, 9)}


@pytest.mark.parametrize("name", CHANGES)
def test_another_order_is_refused_inside_an_epoch_only(name):
    old, new = CHANGES[name]
    dataset = make_dataset(12)
    changed = {"batch_size": {"batch_size": 3}, "processes": {"world": 2}, "seed": {"seed": 9}}[name]
    _, state = begin(make_loader(dataset, 4), 1, 2)
    loader = make_loader(dataset, **{"batch_size": 4, **changed})

    with pytest.raises(
        NoisyLabelError, match=f"^The checkpoint lies inside an epoch with {name}={old}, this run has {new}: resume"
    ):
        loader.load_state_dict(state)
    loader.load_state_dict({**state, "batches": 0})
    assert epoch_of(loader, 1) == epoch_of(make_loader(dataset, **{"batch_size": 4, **changed}), 1)


def test_a_position_beyond_the_epoch_is_refused():
    _, state = begin(make_loader(make_dataset(12), 4), 1, 3)
    make_loader(make_dataset(9), 4).load_state_dict(state)
    with pytest.raises(
        NoisyLabelError, match=r"^The checkpoint lies after batch 3 of an epoch, this run has 2: resume"
    ):
        make_loader(make_dataset(8), 4).load_state_dict(state)


def test_a_loader_with_another_sampler_has_no_position():
    dataset = make_dataset(9)
    loader = ResumableLoader(dataset, batch_size=4, sampler=RandomSampler(dataset))
    next(iter(loader))

    assert loader.state_dict() == {}
    loader.load_state_dict({"epoch": 1, "batches": 1, "batch_size": 2, "processes": 1, "seed": 0})
    assert sum(len(batch[2]) for batch in loader) == 9


def test_a_checkpoint_without_a_position_changes_nothing():
    loader = make_loader(make_dataset(9), 4)
    loader.load_state_dict({})
    assert epoch_of(loader, 0) == epoch_of(make_loader(make_dataset(9), 4), 0)


# Data sets


def test_a_sample_is_image_given_label_and_index():
    dataset = make_dataset(5, transform=lambda image: image + 1)

    image, target, index = dataset[at_epoch(2, 3)]
    assert (image.item(), target.item(), index) == (21.0, 6, 2)
    assert len(dataset) == 5
    _, target, index = next(iter(DataLoader(Subset(dataset, [4, 1]), 2)))
    assert (target.tolist(), index.tolist()) == ([12, 3], [4, 1])


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    keys = [at_epoch(index, epoch) for epoch in range(3) for index in range(4)]
    first = [make_dataset(4, seed=1)[key][0].item() for key in keys]
    torch.manual_seed(123)
    dataset = make_dataset(4, seed=1)
    again = []
    for key in reversed(keys):
        torch.rand(3)
        again.append(dataset[pickle.loads(pickle.dumps(key))][0].item())  # as it travels to a worker

    assert again == first[::-1]
    draws = {value % 10 for value in first}
    other = {make_dataset(4, seed=2)[key][0].item() % 10 for key in keys}
    assert len(draws | other) == 2 * len(keys)
    assert dataset[2][0].item() == first[2]


def test_augmentation_leaves_the_global_generator_alone():
    def broken(image):
        torch.rand(5)
        raise RuntimeError("broken")

    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    make_dataset(4)[at_epoch(2, 1)]
    with pytest.raises(RuntimeError, match="broken"):
        make_dataset(4, transform=broken)[at_epoch(2, 1)]
    assert torch.equal(torch.rand(3), expected)


def test_loading_an_image_is_outside_the_draws():
    """An image that is itself loaded with randomness does not shift the augmentation."""

    def images(index):
        torch.rand(index)
        return torch.tensor(10.0)

    dataset = TrainingDataset(images, torch.arange(4), jitter)
    plain = TrainingDataset(lambda index: torch.tensor(10.0), torch.arange(4), jitter)
    assert [dataset[i][0] for i in range(4)] == [plain[i][0] for i in range(4)]


def test_evaluation_has_image_and_label():
    dataset = EvaluationDataset([5.0, 6.0].__getitem__, torch.tensor([3, 4]), lambda image: image * 2)

    assert len(dataset) == 2
    assert [(x, y.item()) for x, y in (dataset[0], dataset[1])] == [(10.0, 3), (12.0, 4)]


def test_the_order_is_over_any_data_set_and_its_parts():
    plain = TensorDataset(torch.arange(20).reshape(10, 2), torch.arange(10))
    sampler = EpochSampler(plain, 1, 0)
    sampler.set_epoch(1)
    rows = [x.tolist() for x, _ in (plain[key] for key in sampler)]
    assert sorted(rows) == plain.tensors[0].tolist()

    part = Subset(IndexedDataset(plain), [7, 1, 4])
    loader = ResumableLoader(part, batch_size=3, sampler=EpochSampler(part, 1, 0))
    assert next(iter(loader))[2].sort().values.tolist() == [1, 4, 7]

    with pytest.raises(NoisyLabelError, match=r"whole set, and call `select\(subset.indices\)`"):
        EpochSampler(Subset(make_dataset(5), [1, 2]), 1, 0)
