from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from lightning_noisy.data.batch import Batch, batch_index, unpack_batch
from lightning_noisy.errors import NoisyLabelError

X = torch.randn(4, 3)
Y = torch.tensor([0, 1, 2, 1])
INDEX = torch.tensor([7, 5, 3, 1])


class Triple(NamedTuple):
    images: torch.Tensor
    target: torch.Tensor
    index: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        ((X, Y, INDEX), None),
        ([X, Y, INDEX], None),
        (Triple(X, Y, INDEX), None),
        ((X, X, Y, Y, INDEX), None),
        ({"index": INDEX, "x": X, "y": Y}, None),
        ((INDEX, X, Y), 0),
        ([X, INDEX, Y], -2),
        ((X, INDEX), 1),
        ((X, INDEX), -1),
        ({"id": INDEX, "index": Y}, "id"),
        ({0: INDEX, "index": Y}, 0),
        (Triple(X, Y, INDEX), "index"),
        (SimpleNamespace(x=X, rows=INDEX), "rows"),
        ({"nested": {"id": INDEX}}, lambda batch: batch["nested"]["id"]),
    ],
)
def test_the_index_is_found(batch, key):
    assert batch_index(batch, key) is INDEX


@pytest.mark.parametrize("index", [INDEX.tolist(), INDEX.numpy(), INDEX.numpy().astype("uint8")])
def test_other_sequences_of_integers_are_taken(index):
    assert torch.equal(batch_index((X, Y, index)), INDEX)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_integers_become_int64(dtype):
    index = batch_index((X, Y, INDEX.to(dtype)))

    assert index.dtype == torch.int64
    assert torch.equal(index, INDEX)


@pytest.mark.parametrize(
    ("batch", "key", "came"),
    [
        ((X, Y), None, "a tuple of 2 (float32 tensor (4, 3), int64 tensor (4,))"),
        ([X, Y], None, "a list of 2 (float32 tensor (4, 3), int64 tensor (4,))"),
        ((X, Y, INDEX), 3, "a tuple of 3 (float32 tensor (4, 3), int64 tensor (4,), int64 tensor (4,))"),
        ((X, Y, INDEX), -4, "a tuple of 3 (float32 tensor (4, 3), int64 tensor (4,), int64 tensor (4,))"),
        ((X, Y, INDEX), "id", "a tuple of 3 (float32 tensor (4, 3), int64 tensor (4,), int64 tensor (4,))"),
        (([X, X], Y), None, "a tuple of 2 (a list of 2 (float32 tensor (4, 3), float32 tensor (4, 3)), int64"),
        ({"x": X, "y": Y}, None, "a dict with `x`, `y`"),
        ({"x": X, "index": INDEX}, "id", "a dict with `x`, `index`"),
        ({"x": X, "index": INDEX}, -1, "a dict with `x`, `index`"),
        (INDEX, None, "int64 tensor (4,)"),
        (INDEX, 0, "int64 tensor (4,)"),
        ("abc", None, "a str"),
        ((X, Y, INDEX.float()), None, "float32 tensor (4,) as the index"),
        ((X, Y, INDEX > 2), None, "bool tensor (4,) as the index"),
        ((X, Y, INDEX.unsqueeze(1)), None, "int64 tensor (4, 1) as the index"),
        ((X, Y, INDEX[0]), None, "int64 tensor () as the index"),
        ((X, Y, ["7", "5"]), None, "a list of 2 (a str, a str) as the index"),
        ((X, Y, INDEX), lambda batch: batch[0][:, 0], "float32 tensor (4,) as the index"),
        ({"index": INDEX.double()}, None, "float64 tensor (4,) as the index"),
    ],
)
def test_a_batch_without_index_is_refused(batch, key, came):
    with pytest.raises(NoisyLabelError) as error:
        batch_index(batch, key)

    message = str(error.value)
    assert f"got {came}" in message
    assert "wanted (images, target, index) or a dict with the entry `index`" in message
    assert "lightning_noisy.data.IndexedDataset" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [tuple, list, lambda entries: Triple(*entries)])
def test_a_batch_comes_apart(kind):
    views = [X, X + 1]

    batch = unpack_batch(kind([views, Y, INDEX.int()]))
    images, target, index = batch.images, batch.target, batch.index

    assert images is views
    assert target is Y
    assert index.dtype == torch.int64
    assert torch.equal(index, INDEX)


@pytest.mark.parametrize("batch", [(X, Y), X, None])
def test_an_unpacked_batch_needs_an_index(batch):
    with pytest.raises(NoisyLabelError, match=r"^The training batch has no index: got .*`lightning_noisy"):
        unpack_batch(batch)


@pytest.mark.parametrize("batch", [(X, X, Y, INDEX), {"x": X, "y": Y, "index": INDEX}])
def test_an_unpacked_batch_has_three_entries(batch):
    with pytest.raises(NoisyLabelError, match=r"^Expected a training batch \(images, target, index\), but got a "):
        unpack_batch(batch)


def test_a_batch_of_several_loaders_comes_apart():
    batches = unpack_batch({"labeled": [X, Y, INDEX], "unlabeled": [X, Y, INDEX.flip(0)], "ended": None})
    assert list(batches) == ["labeled", "unlabeled"]
    assert torch.equal(batches["unlabeled"].index, INDEX.flip(0))
    assert list(unpack_batch([[X, Y, INDEX]])) == ["0"]


def test_the_index_is_read_once():
    reads = []

    def indices():
        reads.append(1)
        return INDEX

    batch = Batch((X, Y), epoch=0, batch_idx=0, indices={"": indices})
    assert all(batch.index() is INDEX for _ in range(3))
    assert reads == [1]


def test_the_index_of_one_of_several_loaders():
    batch = Batch({"a": [X, Y], "b": [X, Y]}, 0, 0, {"a": lambda: INDEX, "b": lambda: INDEX.flip(0)})
    assert torch.equal(batch.index("b"), INDEX.flip(0))
    with pytest.raises(NoisyLabelError, match=r"parts of 2 loaders \(a, b\): name one with `index_key`"):
        batch.index()
