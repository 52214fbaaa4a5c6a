from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from lightning_noisy.data import IndexedDataset
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.label_statistics import labels_hash
from lightning_noisy.state import EpochSums, RunState, SampleStore, Section, TrainingSet, common_training_set
from lightning_noisy.state.sample_store import first_occurrence

ROWS = 6
CPU = torch.device("cpu")

indices = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=10)
numbers = st.floats(-100, 100, width=32)


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[float | None, list[int], list[list[float]]]]:
    """Updates (weight None) and lerps of rows of width 2."""
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        index = draw(indices)
        values = [[draw(numbers), draw(numbers)] for _ in index]
        steps.append((draw(st.none() | st.sampled_from([0.0, 0.1, 0.7, 1.0])), index, values))
    return steps


def reloaded(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint gives back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@settings(max_examples=150)
@given(operations(), st.sampled_from([torch.float32, torch.float16, torch.float64]))
def test_store_is_a_dict_of_rows(
    steps: list[tuple[float | None, list[int], list[list[float]]]], dtype: torch.dtype
) -> None:
    """Of a sample that stands twice in a batch the first row counts, also for running means."""
    store = SampleStore(ROWS, (2,), fill=0.5, dtype=dtype)
    oracle = {row: [0.5, 0.5] for row in range(ROWS)}
    storage = {torch.float16: 2e-3, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for weight, index, values in steps:
        written: dict[int, list[float]] = {}
        for row, value in zip(index, values, strict=True):
            share = 1.0 if weight is None else weight
            new = [old + share * (v - old) for old, v in zip(oracle[row], value, strict=True)]
            written.setdefault(row, new)
        oracle.update(written)
        arguments = torch.tensor(index), torch.tensor(values, dtype=torch.float64)
        returned = store.update(*arguments) if weight is None else store.lerp(*arguments, weight)
        for rows in (returned, store.get(torch.tensor(index))):
            expected = torch.tensor([oracle[row] for row in index], dtype=torch.float64)
            torch.testing.assert_close(rows.double(), expected, rtol=storage, atol=100 * storage)
        assert returned.equal(store.get(torch.tensor(index)))
    everything = torch.tensor([oracle[row] for row in range(ROWS)], dtype=torch.float64)
    torch.testing.assert_close(store.values.double(), everything, rtol=storage, atol=100 * storage)


@pytest.mark.parametrize(
    ("dtype", "arithmetic"),
    [
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.int64),
    ],
)
def test_types(dtype: torch.dtype, arithmetic: torch.dtype) -> None:
    store, index = SampleStore(4, (3,), dtype=dtype), torch.tensor([2, 0])
    assert store.values.dtype == dtype
    assert store.get(index).dtype == arithmetic
    assert store.update(index, torch.ones(2, 3)).dtype == arithmetic
    assert (store.num_samples, store.shape) == (4, (3,))


def test_float16_is_storage_only() -> None:
    """A mean of steps below half of float16's resolution moves when each step is computed in float32."""
    store, index = SampleStore(1, dtype=torch.float16), torch.tensor([0])
    store.update(index, torch.tensor([2048.0]))
    assert store.lerp(index, torch.tensor([4095.0]), 0.5).item() == pytest.approx(3071.5, abs=1.0)
    # In float16, 60000 - (-60000) is infinite.
    store.update(index, torch.tensor([-60000.0]))
    assert store.lerp(index, torch.tensor([60000.0]), 0.5).item() == 0.0


def test_returned_rows_are_the_stored_ones() -> None:
    store = SampleStore(3, dtype=torch.float16)
    returned = store.update(torch.tensor([1]), torch.tensor([1.0 + 2**-13]))
    assert returned.item() == 1.0


def test_bfloat16_is_refused() -> None:
    with pytest.raises(NoisyLabelError, match=r"`dtype` to be float32, float16 .* got torch.bfloat16"):
        SampleStore(3, dtype=torch.bfloat16)
    with pytest.raises(NoisyLabelError, match="`num_samples`"):
        SampleStore(0)


def test_rows_are_copies_without_gradient() -> None:
    store, index = SampleStore(3, (2,)), torch.tensor([0, 2])
    values = torch.ones(2, 2, requires_grad=True)
    for returned in (store.update(index, values * 2), store.lerp(index, values * 2, 0.5)):
        assert not returned.requires_grad
        returned.fill_(9.0)
    store.get(index).fill_(9.0)
    assert not store.values.requires_grad
    assert store.values.tolist() == [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0]]


@pytest.mark.parametrize("shape", [(3, 4), (2, 2), (3,), (1, 2), (4, 2), (3, 2, 1)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """Wanted (3, 2): also more rows than indices, of which the first would be taken silently."""
    store = SampleStore(4, (2,))
    for write in (store.update, lambda index, values: store.lerp(index, values, 0.5)):
        with pytest.raises(NoisyLabelError, match="rows") as caught:
            write(torch.tensor([0, 1, 2]), torch.ones(shape))
        assert "\n" not in str(caught.value)
    assert store.values.eq(0).all()


def test_a_column_is_no_row_of_numbers() -> None:
    with pytest.raises(NoisyLabelError, match="rows"):
        SampleStore(4).update(torch.tensor([0, 1]), torch.ones(2, 1))


def test_devices() -> None:
    """The table may live elsewhere than index and values, which come back where the index is."""
    store = SampleStore(3, (2,), device="meta")
    assert store.get(torch.empty(2, dtype=torch.int64, device="meta")).device.type == "meta"
    moved = SampleStore(3, fill=2.0)
    assert moved.to("cpu") is moved
    assert moved.update(torch.tensor([0]), torch.tensor([1.0])).device == CPU


@pytest.mark.gpu
@pytest.mark.parametrize("home", ["cpu", "cuda"])
@pytest.mark.parametrize("caller", ["cpu", "cuda"])
def test_table_and_batch_on_different_devices(home: str, caller: str) -> None:
    store = SampleStore(3, (2,)).to(home)
    index, values = torch.tensor([2, 0, 2], device=caller), torch.arange(6.0).reshape(3, 2).to(caller)
    rows = store.update(index, values)
    assert rows.device.type == caller
    assert store.values.device.type == home
    assert rows.tolist() == [[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]
    assert store.lerp(index, values, 0.5).equal(store.get(index))
    assert store.state_dict()["values"].device == CPU
    store.load_state_dict(SampleStore(3, (2,), fill=1.0).state_dict())
    assert store.values.device.type == home
    assert store.values.eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_state_survives_a_checkpoint(dtype: torch.dtype) -> None:
    store = SampleStore(4, (2,), dtype=dtype)
    store.update(torch.tensor([3, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    copy = SampleStore(4, (2,), dtype=dtype)
    copy.load_state_dict(reloaded(store.state_dict()))
    assert copy.values.equal(store.values)
    assert copy.values.dtype == dtype
    copy.update(torch.tensor([0]), torch.full((1, 2), 7.0))
    assert store.values[0].tolist() == [0, 0]


def test_loaded_state_is_a_copy() -> None:
    state = SampleStore(2).state_dict()
    store = SampleStore(2)
    store.load_state_dict(state)
    store.update(torch.tensor([0]), torch.tensor([1.0]))
    assert state["values"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (4,), (4, 2, 1)])
def test_state_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NoisyLabelError) as caught:
        SampleStore(4, (2,)).load_state_dict(SampleStore(shape[0], shape[1:]).state_dict())
    message = str(caught.value)
    assert str(tuple(shape)) in message
    assert "(4, 2)" in message
    assert "\n" not in message


def test_synchronize_alone_changes_nothing() -> None:
    store = SampleStore(3)
    store.update(torch.tensor([1]), torch.tensor([2.0]))
    store.synchronize()
    assert store.values.tolist() == [0.0, 2.0, 0.0]


@given(st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_first_occurrence(values: list[int]) -> None:
    found = first_occurrence(torch.tensor(values, dtype=torch.int64))
    assert found.tolist() == [values.index(value) for value in values]


class Images(Dataset[Any]):
    """As torchvision's sets: labels as a list, under the name of choice."""

    def __init__(self, name: str, labels: Any) -> None:
        setattr(self, name, labels)
        self.length = len(labels)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("labels must be read without loading samples")


LABELS = [3, 0, 1, 1, 2]
TENSORS = TensorDataset(torch.zeros(5, 2), torch.tensor(LABELS))
ORDER = [4, 0, 0]
KNOWN: dict[str, tuple[Dataset[Any], list[int]]] = {
    "tensors": (TENSORS, LABELS),
    "int32": (TensorDataset(torch.zeros(5, 2), torch.tensor(LABELS, dtype=torch.int32)), LABELS),
    "subset": (Subset(TENSORS, ORDER), [2, 3, 3]),
    "subset-tensor": (Subset(TENSORS, torch.tensor(ORDER)), [2, 3, 3]),  # type: ignore[arg-type]
    "subset-of-subset": (Subset(Subset(TENSORS, ORDER), [1, 0]), [3, 2]),
    "indexed": (IndexedDataset(TENSORS), LABELS),
    "indexed-subset": (IndexedDataset(Subset(TENSORS, ORDER)), [2, 3, 3]),
    "targets": (Images("targets", LABELS), LABELS),
    "labels": (Images("labels", LABELS), LABELS),
    "numpy": (Images("labels", torch.tensor(LABELS).numpy()), LABELS),
    "concat": (ConcatDataset([TENSORS, Images("targets", [7, 8])]), [*LABELS, 7, 8]),
}
UNKNOWN: dict[str, tuple[Dataset[Any], int]] = {
    "other": (Images("annotations", LABELS), 5),
    "inputs-only": (TensorDataset(torch.zeros(5, 2)), 5),
    "soft": (TensorDataset(torch.zeros(5, 2), torch.zeros(5, 3)), 5),
    "regression": (TensorDataset(torch.zeros(5, 2), torch.zeros(5)), 5),
    "text": (Images("labels", ["cat", "dog"]), 2),
    "half-known": (ConcatDataset([TENSORS, Images("annotations", [7])]), 6),
}


@pytest.mark.parametrize(("dataset", "labels"), KNOWN.values(), ids=KNOWN.keys())
def test_training_set_of_known_labels(dataset: Dataset[Any], labels: list[int]) -> None:
    found = TrainingSet.of(dataset)
    assert (found.num_samples, found.labels_hash) == (len(labels), labels_hash(torch.tensor(labels)))


@pytest.mark.parametrize(("dataset", "count"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_training_set_of_unknown_labels(dataset: Dataset[Any], count: int) -> None:
    assert TrainingSet.of(dataset) == TrainingSet(count, None)


def test_training_sets_are_told_apart() -> None:
    ours = TrainingSet(5, "a", "p")
    assert ours.difference(TrainingSet(5, "a", "p")) is None
    assert ours.difference(TrainingSet(5, None, "p")) is None
    assert TrainingSet(5, None, "p").difference(ours) is None
    for saved, what in (
        (TrainingSet(6, "a", "p"), "6 training samples, this run has 5"),
        (TrainingSet(6, None), "6 training samples, this run has 5"),
        (TrainingSet(5, "b", "p"), "other given labels"),
        (TrainingSet(5, "a", "q"), "another part of the data"),
    ):
        assert str(ours.difference(saved)).startswith(what)
        with pytest.raises(NoisyLabelError, match=f"per-sample state belongs to {what}") as caught:
            begun(begun(RunState(), saved), ours, fresh=False)
        assert "ckpt_path" in str(caught.value)
        with pytest.raises(NoisyLabelError, match=f"epoch 3 read another set, but .* belongs to {what}") as caught:
            begun(RunState(), saved).follow(ours, epoch=3)
        assert "\n" not in str(caught.value)


def test_parts_of_a_set_differ_by_their_rows() -> None:
    parts = [Subset([(0, 0)] * 3, rows) for rows in ([0, 1], [1, 0], [0, 1])]
    first, other, again = map(TrainingSet.of, parts)
    assert first == again == TrainingSet.of(IndexedDataset(parts[0]))
    assert str(first.difference(other)).startswith("another part")
    assert first == TrainingSet.of(Subset(Subset([(0, 0)] * 3, [2, 1, 0]), [2, 1]))


def test_the_set_that_several_loaders_index() -> None:
    indexed = IndexedDataset(TENSORS)
    for datasets in ([indexed], [indexed, Subset(indexed, ORDER)], [Subset(indexed, [0]), Subset(indexed, ORDER)]):
        training_set, root = common_training_set(datasets, "SELC")
        assert training_set == TrainingSet.of(TENSORS)
        assert root is indexed
    parts = [Subset(TENSORS, [0]), Subset(Subset(TENSORS, ORDER), [1])]
    assert common_training_set(parts, "SELC") == (TrainingSet.of(TENSORS), TENSORS)
    assert common_training_set(parts[:1], "SELC")[1] is parts[0]
    # A subset that is wrapped counts from 0; its labels are its own.
    assert common_training_set([IndexedDataset(Subset(TENSORS, ORDER))], "SELC")[0].num_samples == 3


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([], "SELC keeps state for each training sample and needs DataLoaders over a map-style data set"),
        ([None], "the training loaders read: NoneType"),
        ([IndexedDataset(TENSORS), IndexedDataset(Subset(TENSORS, ORDER))], r"index different sets \(5, 3 samples\)"),
    ],
)
def test_loaders_that_do_not_index_one_set(datasets: list[Any], message: str) -> None:
    with pytest.raises(NoisyLabelError, match=message):
        common_training_set(datasets, "SELC")


SET = TrainingSet(5, "a")


def begun(run: RunState, training_set: TrainingSet = SET, fresh: bool = True) -> RunState:
    run.begin(training_set, None, fresh, CPU, seed=3, max_epochs=8)
    return run


def with_section(run: RunState | None = None, **options: Any) -> tuple[RunState, Section]:
    run, section = run or RunState(), Section("SELC", "SELC at loss", **options)
    run.add(section)
    return run, section


def written() -> tuple[RunState, Section]:
    run, section = with_section()
    begun(run)
    section.store("target", (2,)).update(torch.tensor([1]), torch.ones(1, 2))
    section.store("visits", dtype=torch.int64).update(torch.tensor([1]), torch.tensor([3]))
    return run, section


def loaded() -> tuple[RunState, Section]:
    run, section = with_section()
    run.load_state_dict(reloaded(written()[0].state_dict()))
    return run, section


def test_stores_exist_from_the_start_of_training_on() -> None:
    with pytest.raises(NoisyLabelError, match="SELC has no training set yet"):
        with_section()[1].store("target", (2,))


def test_a_store_is_made_once() -> None:
    _, section = written()
    store = section.store("target", (2,), fill=9.0)
    assert store is section.stores["target"]
    assert store.in_run
    assert store.values[:, 0].tolist() == [0, 1, 0, 0, 0]
    assert section.store("other", fill=9.0).values.tolist() == [9.0] * 5
    assert list(section.stores) == ["target", "visits", "other"]


@pytest.mark.parametrize("make", [written, loaded], ids=["an earlier run", "what a test has loaded"])
def test_a_fresh_run_forgets(make: Any) -> None:
    run, section = make()
    section.history[0] = {"acc": 1.0}
    run.open_epoch, run.spans.epochs = 3, {"GSS": 9}
    begun(run, TrainingSet(7, "b"))
    assert (section.stores, section.history, run.open_epoch, run.spans.epochs) == ({}, {}, None, {})
    assert section.store("target", (3,)).num_samples == 7


def test_a_continued_run_keeps_its_stores() -> None:
    run, section = written()
    store = section.stores["target"]
    begun(run, fresh=False)
    assert section.stores["target"] is store


def test_loaded_state_stays_when_the_run_goes_on() -> None:
    run, section = loaded()
    run.begin(SET, None, False, CPU, seed=4, max_epochs=9)
    assert (run.seed, run.max_epochs) == (3, 8)
    assert section.store("target", (2,)).values[:, 0].tolist() == [0, 1, 0, 0, 0]
    visits = section.store("visits", dtype=torch.int64)
    assert visits.in_run
    assert visits.values.dtype == torch.int64
    assert visits.values.tolist() == [0, 3, 0, 0, 0]


def test_a_section_that_comes_after_the_checkpoint_gets_its_state() -> None:
    run = RunState()
    run.load_state_dict(reloaded(written()[0].state_dict()))
    _, section = with_section(run)
    assert section.stores["visits"].values.tolist() == [0, 3, 0, 0, 0]


def test_state_without_an_owner_is_dropped_with_a_line() -> None:
    run = RunState()
    run.load_state_dict(reloaded(written()[0].state_dict()))
    with pytest.warns(UserWarning, match="state of SELC at loss is dropped: this run has no such part"):
        begun(run, fresh=False)
    assert run.state_dict()["sections"] == {}


@pytest.mark.parametrize("other", [TrainingSet(6, "a"), TrainingSet(5, "b")])
@pytest.mark.parametrize("make", [written, loaded])
def test_state_of_another_training_set_is_refused(make: Any, other: TrainingSet) -> None:
    with pytest.raises(NoisyLabelError, match="per-sample state belongs to"):
        begun(make()[0], other, fresh=False)


def test_loading_alone_refuses_nothing() -> None:
    """Validation and test load a checkpoint too, over data that have nothing to do with it."""
    run, _ = with_section()
    begun(run, TrainingSet(9, "z"))
    run.load_state_dict(reloaded(written()[0].state_dict()))
    assert run.training_set == SET


@pytest.mark.parametrize("shape", [(3,), (), (2, 2)])
def test_a_store_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    run, section = loaded()
    begun(run, fresh=False)
    with pytest.raises(NoisyLabelError, match="number of classes") as caught:
        section.store("target", shape)
    message = str(caught.value)
    assert all(part in message for part in ("`target`", "SELC", "(2,)", str(shape)))
    assert "\n" not in message


def test_two_sections_of_one_key_are_refused_and_one_may_come_twice() -> None:
    run, section = with_section()
    run.add(section)
    with pytest.raises(NoisyLabelError, match=r"Two SELC would keep the same state \(`SELC at loss`\)"):
        with_section(run)


def test_after_its_end_a_run_can_be_saved_and_takes_new_members() -> None:
    run, section = written()
    run.end()
    assert run.state_dict()["sections"].keys() == {"SELC at loss"}
    _, other = with_section(run)
    assert run.sections == {"SELC at loss": other}
    assert other is not section


class Counter:
    """A part of a section: how many steps there were."""

    def __init__(self) -> None:
        self.steps = 0

    def reset(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_parts_are_saved_loaded_and_forgotten_with_their_section() -> None:
    counter, twin = Counter(), Counter()
    run, _ = with_section(parts={"counter": counter}, per_sample=False)
    begun(run)
    counter.steps = 5
    other, _ = with_section(parts={"counter": twin}, per_sample=False)
    other.load_state_dict(reloaded(run.state_dict()))
    assert twin.steps == 5
    begun(other)
    assert twin.steps == 0


batches = st.lists(
    st.tuples(st.integers(1, 200), st.floats(-1e3, 1e3, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=30
)


@given(batches, st.integers(0, 30))
def test_sums_are_weighted_means(added: list[tuple[int, float, float]], interrupted: int) -> None:
    sums = EpochSums()
    for position, (weight, loss, acc) in enumerate(added):
        if position == interrupted:
            state, sums = reloaded(sums.state_dict()), EpochSums()
            sums.load_state_dict(state)
        sums.add(weight, loss=torch.tensor(loss, requires_grad=True), acc=torch.tensor(acc))
    total = sum(weight for weight, _, _ in added)
    means = sums.means()
    assert means["loss"] == pytest.approx(math.fsum(w * loss for w, loss, _ in added) / total, rel=1e-12, abs=1e-9)
    assert means["acc"] == pytest.approx(math.fsum(w * acc for w, _, acc in added) / total, rel=1e-12, abs=1e-12)
    assert sums.means() == means
    sums.merge()
    assert sums.means() == means


def test_sums_do_not_lose_small_terms() -> None:
    """In float32 ten million samples no longer notice another one."""
    sums = EpochSums()
    sums.add(2**25, loss=torch.tensor(1.0))
    sums.add(1, loss=torch.tensor(2.0, dtype=torch.float16))
    assert sums.means()["loss"] == (2**25 + 2) / (2**25 + 1)


def test_sums_start_empty_and_can_be_forgotten() -> None:
    sums = EpochSums()
    assert sums.means() == {}
    sums.merge()
    restored = EpochSums()
    restored.load_state_dict(reloaded(sums.state_dict()))
    assert restored.means() == {}
    sums.add(1, loss=torch.tensor(1.0))
    sums.reset()
    assert sums.means() == {}
    sums.add(2, loss=torch.tensor(3.0))
    assert sums.means() == {"loss": 3.0}


def test_saved_sums_are_a_snapshot() -> None:
    sums = EpochSums()
    sums.add(1, loss=torch.tensor(1.0))
    state = sums.state_dict()
    sums.add(1, loss=torch.tensor(5.0))
    assert state == {"sums": {"loss": torch.tensor(1.0, dtype=torch.float64)}, "counts": {}, "weights": {"loss": 1}}


def test_counts_of_classes() -> None:
    """They are saved and forgotten like sums; a step that runs again or is given up counts nothing."""
    sums = EpochSums()
    sums.count(3, given=torch.tensor([2, 2, 0]))
    state = reloaded(sums.state_dict())
    sums.open_batch.now = object()
    sums.count(3, given=torch.tensor([1]), other=torch.tensor([0, 0]))
    assert {name: count.tolist() for name, count in sums.counts().items()} == {"given": [1, 1, 2], "other": [2, 0, 0]}
    assert sums.state_dict()["counts"]["given"].tolist() == [1, 0, 2]
    sums.take_back()
    sums.open_batch.repeated = True
    sums.count(3, given=torch.tensor([1]))
    assert sums.counts()["given"].tolist() == [1, 0, 2]
    restored = EpochSums()
    restored.load_state_dict(state)
    restored.count(3, given=torch.tensor([0]))
    assert restored.counts()["given"].tolist() == [2, 0, 2]
    restored.reset()
    assert restored.counts() == {}


def test_each_sum_has_its_own_weight() -> None:
    sums = EpochSums()
    sums.add(3, loss=torch.tensor(1.0))
    sums.add(3, acc=torch.tensor(0.5))
    sums.add(1, acc=torch.tensor(0.9))
    assert sums.means() == pytest.approx({"loss": 1.0, "acc": 0.6})


def test_labels_that_an_earlier_run_has_learned_are_forgotten_where_the_checkpoint_has_none() -> None:
    def begun(run: RunState, fresh: bool) -> RunState:
        run.begin(TrainingSet(6), None, fresh, torch.device("cpu"), seed=0, max_epochs=1)
        return run

    used = begun(RunState(), True)
    used.learned_labels.store("criterion", (), -1, torch.int64).update(torch.arange(3), torch.ones(3))
    used.load_state_dict(begun(RunState(), True).state_dict())
    assert begun(used, False).learned_labels.stores == {}
