import pytest
import torch

from lightning_noisy.functional.epoch_order import (
    first_of_classes,
    labeled_in_batch,
    paired_batches,
    passes,
    shuffled,
)


def test_orders_are_permutations_by_their_keys():
    index = torch.tensor([40, 3, 17, 8, 25, 11])
    orders = [shuffled(index, 1, key).tolist() for key in range(20)]
    assert {tuple(sorted(order)) for order in orders} == {(3, 8, 11, 17, 25, 40)}
    assert len({tuple(order) for order in orders}) > 15
    assert shuffled(index.flip(0), 1, 0).tolist() == orders[0]


def test_passes_begin_anew_in_another_order():
    drawn = passes(torch.arange(5), 13, 4).tolist()
    assert [sorted(part) for part in (drawn[:5], drawn[5:10])] == [list(range(5))] * 2
    assert len(set(drawn[10:])) == 3
    assert drawn[:5] != drawn[5:10]


@pytest.mark.parametrize(
    ("unlabeled", "size", "share", "own"),
    [(9, 8, 0.5, 4), (2, 8, 0.5, 4), (9, 5, 0.7, 4), (9, 4, 0.01, 1), (9, 4, 0.99, 3), (0, 4, 0.5, 4)],
)
def test_batches_have_both_parts_and_pass_over_the_labeled_ones(unlabeled, size, share, own):
    labeled, rest = torch.arange(10), torch.arange(100, 100 + unlabeled)
    assert labeled_in_batch(unlabeled, size, share) == own
    order = paired_batches(labeled, rest, own, size, 3)
    batches = order.reshape(-1, size)
    assert len(batches) == -(-10 // own)
    first = batches[:, :own].flatten().tolist()
    assert sorted(first[:10]) == list(range(10))
    assert set(first[10:]) <= set(range(10))
    others = batches[:, own:].flatten().tolist()
    counts = [others.count(100 + i) for i in range(unlabeled)]
    assert sum(counts) == len(others)
    assert not counts or max(counts) - min(counts) <= 1


def test_the_first_of_each_class_in_the_given_order():
    targets = torch.tensor([0, 2, 0, 0, 2, 2, 5])
    assert first_of_classes(torch.tensor([6, 3, 1, 2, 0, 4, 5]), targets, 2).tolist() == [6, 3, 1, 2, 4]
