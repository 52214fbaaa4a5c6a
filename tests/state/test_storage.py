"""How rows are kept: each way against the plain float32 store, or against numpy."""

from __future__ import annotations

import copy
import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_noisy import NoisyLabelError, SampleStore, Storage
from lightning_noisy.callbacks import (
    SELC,
    ConfidenceTracker,
    GradientBiasTracker,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    PosteriorWriter,
    TrainingDynamics,
)
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import (
    ActivePassiveLoss,
    EarlyLearningRegularization,
    NegativeLearning,
    PencilLoss,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    StagedLoss,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.modules import SURE
from lightning_noisy.networks import SmallCNN
from lightning_noisy.state import Section
from lightning_noisy.state.row_format import format_of, row_bytes
from tests.state.test_state import reloaded

ROWS, CLASSES = 7, 9
HALF = Storage(dtype="float16")


def probabilities(count: int, seed: int = 0, classes: int = CLASSES) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(dim=1)


def largest(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """In float64: the k largest entries stay, the rest is spread evenly."""
    kept = np.zeros_like(rows)
    for row, out in zip(rows, kept, strict=True):
        order = np.argsort(-row, kind="stable")
        out[order[:k]] = row[order[:k]]
        out[order[k:]] = row[order[k:]].sum() / (len(row) - k)
    return kept


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-7), ("float16", 2**-11)])
@pytest.mark.parametrize("k", [1, 3, CLASSES - 1])
def test_largest_entries_stay_and_the_others_are_their_mean(k: int, dtype: str, rounding: float) -> None:
    store = SampleStore(ROWS, (CLASSES,), storage=Storage(dtype, top_k=k))
    index, rows = torch.tensor([5, 0, 3]), probabilities(3)
    returned = store.update(index, rows)
    expected = largest(rows.double().numpy(), k)
    np.testing.assert_allclose(returned.numpy(), expected, rtol=rounding, atol=2**-24)
    assert returned.equal(store.get(index))
    assert returned.argmax(dim=1).equal(rows.argmax(dim=1))
    torch.testing.assert_close(returned.sum(dim=1), torch.ones(3), rtol=2 * rounding, atol=1e-7)
    assert store.rows()[[1, 2, 4, 6]].eq(0).all(), "rows that nobody has written are still zero"
    assert (store.shape, store.num_samples) == ((CLASSES,), ROWS)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, CLASSES - 1), st.floats(0, 8, width=16)), max_size=4))
def test_what_few_entries_say_is_kept_exactly(k: int, spikes: list[tuple[int, float]]) -> None:
    """A row that is even but for k spikes, as a pool of gradient switching is, loses nothing."""
    row = torch.full((CLASSES,), 0.25)
    for place, height in spikes[:k]:
        row[place] = 0.25 + height
    store = SampleStore(1, (CLASSES,), storage=Storage(top_k=k))
    assert store.update(torch.tensor([0]), row.unsqueeze(0)).squeeze(0).equal(row)


@pytest.mark.parametrize("momentum", [0.9, 0.99])
def test_running_means_in_float16_stay_close_to_float32(momentum: float) -> None:
    """Each write adds at most 2^-11, of which the mean forgets a share; roundings cancel out."""
    plain, half = SampleStore(ROWS, (CLASSES,)), SampleStore(ROWS, (CLASSES,), storage=HALF)
    everything, seen = torch.arange(ROWS), np.zeros((ROWS, CLASSES))
    for step in range(200):
        rows = probabilities(ROWS, step)
        seen = momentum * seen + (1 - momentum) * rows.double().numpy()
        for store in (plain, half):
            store.lerp(everything, rows, 1 - momentum)
    np.testing.assert_allclose(plain.rows().numpy(), seen, atol=1e-5)
    assert half.values.dtype == torch.float16
    assert half.rows().dtype == half.get(everything).dtype == torch.float32
    assert np.abs(half.rows().numpy() - seen).sum(axis=1).max() < 0.25 * 2**-11 / (1 - momentum)


@pytest.mark.parametrize("k", [2, 5])
def test_each_write_errs_by_at_most_twice_the_mass_outside(k: int) -> None:
    store = SampleStore(200, (CLASSES,), storage=Storage(top_k=k))
    rows = probabilities(200)
    error = (store.update(torch.arange(200), rows) - rows).abs().sum(dim=1)
    outside = rows.sort(dim=1, descending=True).values[:, k:].sum(dim=1)
    assert (error <= 2 * outside + 1e-6).all()


@pytest.mark.parametrize(
    ("storage", "classes", "size"),
    [
        (Storage(), 1000, 4000),
        (HALF, 1000, 2000),
        (Storage("float16", top_k=64), 1000, 4 * 64 + 2),
        (Storage("float32", top_k=64), 1000, 6 * 64 + 4),
        (Storage("float16", top_k=64), 32768, 4 * 64 + 2),
        (Storage("float16", top_k=64), 32769, 6 * 64 + 2),
    ],
)
def test_bytes_of_a_row(storage: Storage, classes: int, size: int) -> None:
    assert row_bytes(format_of((classes,), torch.float32, storage)) == size
    store = SampleStore(3, (classes,), storage=storage)
    assert store.nbytes == 3 * size
    last = torch.nn.functional.one_hot(torch.tensor([classes - 1]), classes).float()
    assert store.update(torch.tensor([2]), last).equal(last)


@pytest.mark.parametrize("storage", [HALF, Storage("float16", top_k=3), Storage(top_k=3)])
def test_a_store_is_saved_loaded_copied_and_taken_back(storage: Storage) -> None:
    store = SampleStore(ROWS, (CLASSES,), storage=storage)
    everything = torch.arange(ROWS)
    store.update(everything, probabilities(ROWS))
    before, twin = store.rows().clone(), copy.deepcopy(store)
    restored = SampleStore.restored(reloaded(store.state_dict()))
    loaded = SampleStore(ROWS, (CLASSES,), storage=storage)
    loaded.load_state_dict(reloaded(store.state_dict()))
    assert restored.format == loaded.format == store.format
    store.undo.open_batch.now = object()
    for seed in (1, 2):
        store.update(everything[1:4], probabilities(3, seed))
    assert not store.rows().equal(before)
    assert SampleStore.restored(store.state_dict()).rows().equal(before), "the open batch does not count yet"
    store.undo.take_back()
    for other in (store, twin, restored, loaded):
        assert other.rows().equal(before)
    parts = list(store.blocks())
    assert torch.cat([index for index, _ in parts]).equal(everything)
    assert torch.cat([rows for _, rows in parts]).equal(before)


@pytest.mark.parametrize("storage", [Storage(), HALF, Storage("float16", top_k=3)], ids=str)
def test_rows_in_a_file_are_those_in_memory(tmp_path: Path, storage: Storage) -> None:
    """The file has no name, so that nothing is left of it; what was saved does not move with it."""
    folder = tmp_path / "scratch"
    kept = replace(storage, folder=str(folder))
    memory, file = (SampleStore(ROWS, (CLASSES,), storage=one) for one in (storage, kept))
    assert file.rows().eq(0).all()
    for seed in range(3):
        for store in (memory, file):
            store.lerp(torch.tensor([6, 0, 3]), probabilities(3, seed), 0.3)
    assert list(folder.iterdir()) == []
    assert file.rows().equal(memory.rows())
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert maps.read_text().count(f"{folder}/.") == len(file.columns)
    saved = reloaded(file.state_dict())
    restored = SampleStore.restored(saved)
    restored.settle(kept)
    assert restored.to("meta").values.device.type == "cpu"
    file.update(torch.arange(ROWS), probabilities(ROWS))
    assert restored.rows().equal(memory.rows())
    assert SampleStore(2, fill=float("nan"), storage=Storage(folder=str(folder))).rows().isnan().all()
    assert SampleStore(2, (3,), -1, torch.int64, storage=kept).rows().eq(-1).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool])
def test_other_types_are_kept_as_they_are(dtype: torch.dtype) -> None:
    store = SampleStore(2, (3,), dtype=dtype, storage=Storage("float16", top_k=2))
    assert store.values.dtype == dtype
    assert store.values.shape == (2, 3)


REFUSED: list[tuple[Any, str]] = [
    (lambda: Storage(dtype="bfloat16"), "Expected argument `dtype` to be one of 'float32', 'float16', but got 'bfloat"),
    (lambda: Storage(folder=""), "`folder` to be the name of a folder, or None, but got ''"),
    (lambda: Storage(sharded=1), "`sharded` to be a bool, but got 1"),  # type: ignore[arg-type]
    (lambda: SampleStore(3, storage=Storage(folder=__file__)), "argument `folder`: "),
    (lambda: Storage(top_k=0), "`top_k` to be an int of at least 1, or None, but got 0"),
    (lambda: Storage(top_k=2.0), "`top_k`"),  # type: ignore[arg-type]
    (lambda: SampleStore(3, (9,), storage=Storage(top_k=9)), "`top_k` to be less than 9, the number of classes"),
    (lambda: SampleStore(3, (2, 9), storage=Storage(top_k=1)), "`top_k` to be None for rows of shape (2, 9)"),
    (lambda: SELC(storage="float16"), "`storage` to be a Storage, or None, but got 'float16'"),
    (lambda: ConfidenceTracker(storage=Storage(top_k=4)), "ConfidenceTracker cannot keep its rows with `top_k=4`"),
    (lambda: LabelWriter(storage=Storage(top_k=4)), "no probabilities of classes: leave it out"),
    (lambda: JointOptimizationLabels(storage=Storage(top_k=4)), "a row holds predictions of several epochs"),
    (lambda: GradientBiasTracker(storage=HALF), "GradientBiasTracker cannot keep its rows with `dtype='float16'`"),
    (lambda: PencilLoss(storage=Storage(top_k=4)), "PencilLoss cannot keep its rows with `top_k=4`"),
    (lambda: TrainingDynamics(storage=Storage(top_k=4)), "`top_k=4`"),
    (
        lambda: SURE(SmallCNN(width=2), LinearHead, nn.CrossEntropyLoss(), 3, storage=HALF),
        "SURE cannot keep its rows with `dtype='float16'`, since they count epochs",
    ),
    (
        lambda: StagedLoss(
            [NegativeLearning(window=2), SelectivePositiveLearning(window=2, storage=HALF)], [0, 1]
        ).storage_of("label_probability"),
        "give all the same `storage`",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_may_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    SampleStore(2, storage=Storage(folder="~/scratch"))
    assert (tmp_path / "scratch").is_dir()


def test_the_checkpoint_s_storage_is_named_first() -> None:
    section = Section("SELC", storage=HALF)
    section.load_state_dict({**Section("SELC").state_dict(), "stores": {"a": SampleStore(3, (2,)).state_dict()}})
    section.begin(3, torch.device("cpu"))
    said = (
        "The checkpoint's rows and those of this run are kept in two ways, whole in torch.float32 and whole in torch.f"
    )
    with pytest.raises(NoisyLabelError, match=f"^{said}loat16: resume with the `storage` that wrote it"):
        section.store("a", (2,))


def test_a_disk_without_room_is_said_before_a_row_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(NoisyLabelError, match=r"^Cannot keep 1 GiB of rows in '.*', argument `folder`: No space left"):
        SampleStore(2**18, (1024,), storage=Storage(folder=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [SELC, GradientSwitching, PosteriorWriter])
def test_callbacks_over_probabilities_take_all_of_it(kind: Any) -> None:
    storage = Storage("float16", top_k=4)
    assert kind(storage=storage).section.storage == storage


def test_parts_of_a_loss_have_storages_of_their_own() -> None:
    of_rows = Storage("float16", top_k=4)
    whole = ActivePassiveLoss(
        EarlyLearningRegularization(base=TruncatedGeneralizedCrossEntropy(storage=HALF), storage=of_rows),
        SelfAdaptiveTraining(storage=HALF),
        1.0,
        1.0,
    )
    assert {name: whole.storage_of(name) for name in whole.store_shapes(CLASSES)} == {
        "active.prediction": of_rows,
        "active.base.dropped": HALF,
        "passive.target": HALF,
    }


@pytest.mark.parametrize("other", [Storage(), Storage("float16", top_k=4)])
def test_rows_that_are_kept_in_another_way_are_refused(other: Storage) -> None:
    saved = SampleStore(ROWS, (CLASSES,), storage=HALF).state_dict()
    with pytest.raises(NoisyLabelError, match="resume with the `storage` that wrote it") as caught:
        SampleStore(ROWS, (CLASSES,), storage=other).load_state_dict(saved)
    assert "whole in torch.float16" in str(caught.value)
