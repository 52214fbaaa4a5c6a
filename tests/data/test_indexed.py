import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lightning_noisy.data import EpochSampler, IndexedDataset
from lightning_noisy.data.epoch_index import at_epoch
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError

Pair = namedtuple("Pair", "x y")


class Samples(Dataset):
    """Sample i is made of 10 i and 100 i."""

    def __init__(self, make, count=5):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(10 * index, 100 * index)


class Labeled(Dataset):
    """Has labels and no samples: those must not be asked for."""

    def __init__(self, count, **attributes):
        self.count = count
        vars(self).update(attributes)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        raise AssertionError("a sample was loaded")


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(0, 1)])


class CountedStream(Stream):
    def __len__(self):
        return 1


@pytest.mark.parametrize("make", [lambda x, y: (x, y), lambda x, y: [x, y], Pair], ids=["tuple", "list", "named tuple"])
def test_sequences_get_the_index_last(make):
    dataset = IndexedDataset(Samples(make))

    assert len(dataset) == 5
    assert [tuple(dataset[i]) for i in range(5)] == [(10 * i, 100 * i, i) for i in range(5)]


def test_samples_of_more_entries_keep_them():
    assert IndexedDataset(Samples(lambda x, y: (x, y, y + 1)))[2] == (20, 200, 201, 2)


def test_dicts_get_the_entry_index_and_are_not_changed():
    rows = [{"x": 1, "y": 2}, {"x": 3, "y": 4, "index": 99}]
    dataset = IndexedDataset(rows)

    assert dataset[0] == {"x": 1, "y": 2, "index": 0}
    with pytest.raises(NoisyLabelError, match="Sample 1 has an entry `index` of its own"):
        dataset[1]
    assert rows == [{"x": 1, "y": 2}, {"x": 3, "y": 4, "index": 99}]


@pytest.mark.parametrize("sample", [torch.zeros(2), 3, "text", None])
def test_other_samples_are_refused_at_access(sample):
    dataset = IndexedDataset(Samples(lambda x, y: sample))

    with pytest.raises(NoisyLabelError, match=rf"tuples \(x, y\) or dicts, but sample 3 is a {type(sample).__name__}"):
        dataset[3]


@pytest.mark.parametrize("dataset", [Stream(), CountedStream(), iter([(0, 1)]), {1, 2}, 5])
def test_data_that_cannot_be_counted_or_asked_is_refused(dataset):
    with pytest.raises(NoisyLabelError, match=f"map-style data set with a length, but got a {type(dataset).__name__}"):
        IndexedDataset(dataset)


@pytest.mark.parametrize("dataset", [[], TensorDataset(torch.zeros(0, 2), torch.zeros(0)), Subset([1, 2], [])])
def test_an_empty_data_set_is_refused(dataset):
    with pytest.raises(NoisyLabelError, match="`dataset` to hold at least one sample, but it is empty"):
        IndexedDataset(dataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_carry_the_index_through_shuffling_and_workers(num_workers):
    dataset = IndexedDataset(TensorDataset(torch.arange(20) * 10, torch.arange(20) * 100))
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(dataset, 6, shuffle=True, num_workers=num_workers, generator=generator)

    x, y, index = (torch.cat(parts) for parts in zip(*loader, strict=True))

    assert index.dtype == torch.int64
    assert sorted(index.tolist()) == list(range(20))
    assert index.tolist() != list(range(20))
    assert torch.equal(x, 10 * index)
    assert torch.equal(y, 100 * index)


def test_around_a_subset_the_index_counts_from_zero():
    assert [s[-1] for s in (IndexedDataset(Subset(range_pairs(), [7, 3]))[i] for i in range(2))] == [0, 1]


def range_pairs():
    return [(i, i) for i in range(9)]


LABELS = [3, 1, 0, 2, 1]
KINDS = {
    "list": LABELS,
    "tuple": tuple(LABELS),
    "tensor": torch.tensor(LABELS),
    "narrow tensor": torch.tensor(LABELS, dtype=torch.uint8),
    "array": np.array(LABELS),
    "narrow array": np.array(LABELS, dtype=np.int32),
    "list of tensors": [torch.tensor(label) for label in LABELS],
    "list of numpy integers": [np.int64(label) for label in LABELS],
}


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_read_from_attributes(kind, name):
    labels = known_labels(Labeled(5, **{name: KINDS[kind]}))

    assert labels.dtype == torch.int64
    assert labels.tolist() == LABELS


def test_targets_go_before_labels():
    assert known_labels(Labeled(2, targets=[0, 1], labels=[1, 1])).tolist() == [0, 1]


def labeled(*labels):
    return Labeled(len(labels), targets=list(labels))


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (TensorDataset(torch.zeros(3, 2), torch.tensor([4, 5, 6])), [4, 5, 6]),
        (TensorDataset(torch.zeros(2), torch.zeros(2), torch.tensor([4, 5]), torch.zeros(2, 3).long()), [4, 5]),
        (IndexedDataset(labeled(4, 5)), [4, 5]),
        (Subset(labeled(4, 5, 6, 7), [3, 0, 0]), [7, 4, 4]),
        (Subset(labeled(4, 5, 6, 7), range(1, 3)), [5, 6]),
        (Subset(labeled(4, 5, 6, 7), np.array([2, 1])), [6, 5]),
        (Subset(labeled(4, 5, 6, 7), torch.tensor([2, 1])), [6, 5]),
        (Subset(Subset(labeled(4, 5, 6, 7), [3, 2, 0]), [2, 0]), [4, 7]),
        (ConcatDataset([labeled(4, 5), Labeled(1, labels=[6]), Subset(labeled(7, 8), [1])]), [4, 5, 6, 8]),
        (IndexedDataset(Subset(ConcatDataset([labeled(4, 5), labeled(6)]), [2, 0])), [6, 4]),
        (Subset(IndexedDataset(labeled(4, 5)), [1]), [5]),
    ],
)
def test_labels_are_found_through_wrappers(dataset, labels):
    assert known_labels(dataset).tolist() == labels


@pytest.mark.parametrize(
    "dataset",
    [
        Labeled(3),
        Labeled(3, targets=None),
        Labeled(3, targets=[0.0, 1.0, 2.0]),
        Labeled(3, targets=np.zeros(3, dtype=np.float32)),
        Labeled(3, targets=[0, 1]),
        Labeled(3, targets=[0, 1, 2, 0]),
        Labeled(3, targets=torch.zeros(3, 4).long()),
        Labeled(3, targets=["a", "b", "c"]),
        Labeled(3, targets=np.array(["a", "b", "c"])),
        Labeled(3, targets=[0, None, 1]),
        Labeled(3, targets=[[0, 1], [2], []]),
        TensorDataset(torch.zeros(3)),
        TensorDataset(torch.zeros(3), torch.zeros(3)),
        TensorDataset(torch.zeros(3), torch.zeros(3, 2).long()),
        TensorDataset(torch.zeros(2), torch.tensor([4, 5]), torch.tensor([7, 8])),
        [(0, 1), (0, 1)],
        IndexedDataset(Labeled(3)),
        Subset(Labeled(3), [0]),
        Subset(Labeled(3, targets=[0, 1]), [0]),
        ConcatDataset([labeled(0, 1), Labeled(3)]),
    ],
)
def test_labels_nobody_knows_are_none(dataset):
    assert known_labels(dataset) is None


class Augmented(Dataset):
    """Draws from each of the streams that data sets use."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        drawn = float(torch.rand(())), float(np.random.random()), random.random()  # noqa: NPY002
        return torch.tensor([index, *drawn]), 0


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_of_a_set_are_those_of_seed_epoch_and_index(workers, monkeypatch):
    def rows(epoch, workers=0):
        sampler = EpochSampler(train_set)
        sampler.set_epoch(epoch)
        loader = DataLoader(train_set, 2, sampler=sampler, num_workers=workers)
        found = torch.cat([x for x, *_ in loader])
        return found[found[:, 0].argsort(), 1:]

    train_set = IndexedDataset(Augmented())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    following = float(torch.rand(())), random.random(), float(np.random.random())  # noqa: NPY002
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    first = torch.stack([train_set[at_epoch(index, 1)][0][1:] for index in range(6)])
    assert (float(torch.rand(())), random.random(), float(np.random.random())) == following  # noqa: NPY002
    assert torch.equal(rows(1, workers), first)
    assert len(first.unique()) == 18
    assert not (rows(2) == first).any()
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert not (rows(1) == first).any()
    assert not torch.equal(train_set[0][0], train_set[0][0])  # under another sampler draws are the project's own
