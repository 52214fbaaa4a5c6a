"""Whole runs whose rows are kept in other ways, against plain ones; shards: two processes against two, and one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop, Storage
from lightning_noisy.callbacks import (
    SELC,
    ConfidenceTracker,
    CorrectionTracker,
    GradientBiasTracker,
    GradientSwitching,
    JointOptimizationLabels,
    LabelWriter,
    LossMemory,
    MemorizationTracker,
    PoolTracker,
    PosteriorWriter,
    StepSeed,
)
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader, ShardedSampler
from lightning_noisy.losses import (
    EarlyLearningRegularization,
    PencilLoss,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.state import RunDriver, SampleStore, exchange
from tests.distributed import Pool
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.test_ddp import CLOSE, same

SAMPLES, BATCH, EPOCHS, SEED = 23, 4, 3, 3  # of one process: 12 samples, of which one may be padding, in 3 batches
STEPS = 3
_, NOISY, CLEAN = make_tensors(SAMPLES)

Method = tuple[nn.Module, list[Callback]]
CASES: dict[str, Callable[[Storage], Method]] = {
    "selc": lambda kept: (nn.CrossEntropyLoss(), [SELC(0.7, warmup_epochs=1, clean_targets=CLEAN, storage=kept)]),
    "switching": lambda kept: (nn.CrossEntropyLoss(), [GradientSwitching(seed=5, redraw="epoch", storage=kept)]),
    "joint": lambda kept: (nn.CrossEntropyLoss(), [JointOptimizationLabels(1, window=2, storage=kept)]),
    "elr": lambda kept: (EarlyLearningRegularization(storage=kept), [LossMemory()]),
    "sat": lambda kept: (SelfAdaptiveTraining(1, 0.7, storage=kept), [LossMemory()]),
    "pencil": lambda kept: (PencilLoss(label_lr=40.0, warmup_epochs=1, scale=2.0, storage=kept), [LossMemory()]),
}


class AsTwo(ShardedSampler):
    """One process visits what two would, batch by batch."""

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__(dataset, 1, 0, seed)
        self._two = ShardedSampler(dataset, 2, 0, seed)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        return self._two.total_size

    def order(self) -> Tensor:
        self._two.set_epoch(self.epoch)
        return self._two.order()


class Crash(Callback):
    """In both processes, inside a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def train(
    rank: int,
    case: str,
    storage: Storage,
    folder: Path,
    resume: str | None = None,
    processes: int = 2,
    sampler: str = "sharded",
    crash: int | None = None,
) -> dict[str, Any]:
    """Run by both processes of the pool, or here as the only one."""
    criterion, methods = CASES[case](storage)
    train_set = IndexedDataset(TensorDataset(make_tensors(SAMPLES)[0].double(), NOISY))
    made: dict[str, Any] = {
        "sharded": partial(ShardedSampler, train_set, seed=SEED),
        "as two": partial(AsTwo, train_set, SEED),
        "plain": partial(EpochSampler, train_set, seed=SEED),
    }
    loader = ResumableLoader(train_set, batch_size=BATCH * 2 // processes, sampler=made[sampler]())
    torch.manual_seed(7)
    module = ForeignModule().double()
    module.criterion = criterion  # type: ignore[assignment]
    save = partial(ModelCheckpoint, folder, save_top_k=-1)
    extra: list[Callback] = [save(filename="{step}", every_n_train_steps=1), save(filename="end-{epoch}")]
    extra += [] if crash is None else [Crash(crash), OnExceptionCheckpoint(folder)]
    options: dict[str, Any] = {"devices": processes, "strategy": "ddp" if processes > 1 else "auto"}
    callbacks = [StepSeed(1), *methods, *extra]
    trainer = make_trainer(folder, callbacks, EPOCHS, enable_checkpointing=True, **options)
    trainer.fit(module, loader, ckpt_path=resume)
    return {
        "weights": dict(module.state_dict()),
        "rows": {name: store.rows() for name, store in stores_of(trainer).items()},
        "kept": {name: len(store.values) for name, store in stores_of(trainer).items()},
        "history": [getattr(method, "history", {}) for method in methods],
    }


def stores_of(trainer: Any) -> dict[str, SampleStore]:
    sections = RunDriver.of(trainer).sections.items()
    return {f"{key}.{name}": store for key, section in sections for name, store in section.stores.items()}


def saved_rows(path: Path) -> dict[str, Any]:
    sections = torch.load(path, weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    stores = ((f"{key}.{name}", store) for key, part in sections.items() for name, store in part["stores"].items())
    return {name: {key: value for key, value in store.items() if key != "writer"} for name, store in stores}


@pytest.mark.parametrize("case", ["selc", "switching", "elr", "sat"])
def test_a_run_with_all_entries_but_one_is_the_plain_run(tmp_path: Path, case: str) -> None:
    """The mass outside is then the one entry that is left: three of four classes, bit for bit."""
    others = Storage(top_k=3, sharded=True, folder=str(tmp_path / "rows"))
    plain, largest = (train(0, case, kept, tmp_path, processes=1) for kept in (Storage(), others))
    same(largest, plain)
    assert all(rows.any() for rows in plain["rows"].values())


@pytest.mark.parametrize("case", CASES)
def test_a_run_in_float16_stays_close_to_the_plain_run(tmp_path: Path, case: str) -> None:
    plain, half = (train(0, case, kept, tmp_path, processes=1) for kept in (Storage(), Storage("float16")))
    for part in ("weights", "rows"):
        same(half[part], plain[part], rtol=5e-3, atol=5e-3)
    floating = [name for name, rows in plain["rows"].items() if rows.is_floating_point()]
    assert any(not half["rows"][name].equal(plain["rows"][name]) for name in floating), "nothing was rounded"


LARGEST = Storage("float16", top_k=2)
KEPT = [*((case, Storage()) for case in CASES), ("selc", Storage("float16")), ("elr", LARGEST), ("switching", LARGEST)]


@pytest.mark.parametrize(("case", "storage"), KEPT)
def test_shards_hold_exactly_what_all_would(pool: Pool, tmp_path: Path, case: str, storage: Storage) -> None:
    sharded = Storage(storage.dtype, storage.top_k, sharded=True)
    own = pool.run(train, case, sharded, tmp_path / "own")
    whole = pool.run(train, case, storage, tmp_path / "whole")
    same([run["weights"] for run in own], [run["weights"] for run in whole])
    same([run["history"] for run in own], [run["history"] for run in whole])
    assert whole[0]["rows"]
    for rank, (ours, theirs) in enumerate(zip(own, whole, strict=True)):
        assert set(ours["kept"].values()) == {len(range(rank, SAMPLES, 2))}
        same(ours["rows"], {name: rows[rank::2] for name, rows in theirs["rows"].items()})
    for name in ("step=5", "step=9", "end-epoch=1"):
        same(saved_rows(tmp_path / "own" / f"{name}.ckpt"), saved_rows(tmp_path / "whole" / f"{name}.ckpt"))
    if storage == Storage():
        alone = train(0, case, sharded, tmp_path / "alone", processes=1, sampler="as two")
        same(own[0]["weights"], alone["weights"], **CLOSE)
        same({name: rows[1::2] for name, rows in alone["rows"].items()}, own[1]["rows"], **CLOSE)


@pytest.mark.parametrize("checkpoint", ["step=5", "end-epoch=0"])
@pytest.mark.parametrize(
    ("case", "sampler"), [("selc", "sharded"), ("elr", "sharded"), ("switching", "sharded"), ("elr", "plain")]
)
def test_a_resume_equals_the_uninterrupted_run(
    pool: Pool, tmp_path: Path, case: str, sampler: str, checkpoint: str
) -> None:
    """With the plain sampler also what the padding of the epoch's last batch must not write again."""
    storage = Storage("float16", top_k=2, sharded=sampler == "sharded", folder=str(tmp_path / "rows"))
    whole, resumed = tmp_path / "whole", str(tmp_path / "whole" / f"{checkpoint}.ckpt")
    runs = [
        pool.run(partial(train, resume=resume, sampler=sampler), case, storage, folder)
        for folder, resume in ((whole, None), (tmp_path / "again", resumed))
    ]
    for rank, run in zip(*runs, strict=True):
        for part in ("weights", "rows", "history"):
            same(run[part], rank[part])


def test_another_number_of_processes(pool: Pool, tmp_path: Path) -> None:
    """Between epochs rows go to whom they belong then; inside of one the loader refuses."""
    storage = Storage(sharded=True)
    pool.run(train, "elr", storage, tmp_path)
    alone = train(0, "elr", storage, tmp_path / "one", str(tmp_path / "end-epoch=0.ckpt"), processes=1)
    expected = train(0, "elr", Storage(), tmp_path / "plain", str(tmp_path / "end-epoch=0.ckpt"), processes=1)
    same(alone, expected)
    pool.run(train, "elr", storage, tmp_path / "two", str(tmp_path / "one" / "end-epoch=1.ckpt"))
    with pytest.raises(ValueError, match="The checkpoint lies inside an epoch with"):
        train(0, "elr", storage, tmp_path, str(tmp_path / "step=5.ckpt"), processes=1)


def attempt(rank: int, *arguments: Any, **options: Any) -> str:
    """What a run says that both processes give up."""
    with pytest.raises((NoisyLabelError, RuntimeError)) as caught:
        train(rank, *arguments, **options)
    return str(caught.value)


def test_what_a_failure_leaves_is_no_start(pool: Pool, tmp_path: Path) -> None:
    storage = Storage(sharded=True)
    assert pool.run(partial(attempt, crash=4), "elr", storage, tmp_path) == ["crash", "crash"]
    for line in pool.run(attempt, "elr", storage, tmp_path, str(tmp_path / "on_exception.ckpt")):
        assert line.startswith("The checkpoint has 12 of 23 rows: it was written when a process had failed")
        assert "\n" not in line
    pool.run(train, "elr", storage, tmp_path, str(tmp_path / "step=4.ckpt"))


def test_samples_that_wander_are_refused(pool: Pool, tmp_path: Path) -> None:
    for line in pool.run(partial(attempt, sampler="plain"), "selc", Storage(sharded=True), tmp_path):
        assert line.startswith("SELC keeps its rows in shards, so each process has to train on samples of its own, but")
        assert line.endswith(
            "is EpochSampler: give the training loader a `ShardedSampler`, or a data module `sharded=True`."
        )


def in_a_loop(rank: int) -> str:
    module, train_set = nn.Linear(6, 4), TensorDataset(*make_tensors(SAMPLES)[:2])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    noisy = NoisyLoop(module, optimizer, [SELC(storage=Storage(sharded=True))], train_set)
    with pytest.raises(NoisyLabelError) as caught, noisy.batch(torch.tensor([rank]), 0):
        pass
    return str(caught.value)


def test_a_loop_of_ones_own_has_no_sampler_that_is_known(pool: Pool) -> None:
    for line in pool.run(in_a_loop):
        assert line.startswith("SELC keeps its rows in shards")
        assert "the sampler is none that is known: give the training loader a `ShardedSampler`" in line


def foreign_row(rank: int) -> str:
    with pytest.raises(NoisyLabelError) as caught:
        SampleStore(6, (2,), storage=Storage(sharded=True)).get(torch.tensor([rank, 1 - rank]))
    return str(caught.value)


def test_a_row_of_another_process_is_refused(pool: Pool) -> None:
    for rank, line in enumerate(pool.run(foreign_row)):
        other = 1 - rank
        assert f"keeps rows of every 2-th sample alone, but got sample {other} of process {other}: let the" in line


def gathered(rank: int, chunk_bytes: int) -> dict[str, Any]:
    before, exchange.CHUNK_BYTES = exchange.CHUNK_BYTES, chunk_bytes
    try:
        store = SampleStore(9, (3,), storage=Storage("float16", top_k=1, sharded=True))
        index = torch.arange(rank, 9, 2)
        store.update(index, torch.nn.functional.one_hot(index % 3, 3) * (index.unsqueeze(1) + 1.0))
        return store.whole_state()
    finally:
        exchange.CHUNK_BYTES = before


@pytest.mark.parametrize("chunk_bytes", [1, 20, 2**24])
def test_rows_are_gathered_in_chunks(pool: Pool, chunk_bytes: int) -> None:
    first, second = pool.run(gathered, chunk_bytes)
    assert first["values"][:, 0].tolist() == [index + 1 for index in range(9)]
    assert first["classes"].flatten().tolist() == [index % 3 for index in range(9)]
    assert "num_samples" not in first
    assert len(second["values"]) == 4


def test_bytes_a_sample_are_those_of_the_documentation(tmp_path: Path) -> None:
    """docs/scaling.md, with K = 4 classes and windows of 2 epochs."""
    classes, window = 4, 2
    expected = {
        "SELC": 4 * classes,
        "PosteriorWriter": 4 * classes,
        "GradientSwitching": 4 * classes + 16,
        "JointOptimizationLabels": 4 * (window + 1) * (classes + 1),
        "GradientBiasTracker": 4 * classes + 8,
        "PoolTracker": 12,
        "CorrectionTracker": 16,
        "ConfidenceTracker": 8,
        "LabelWriter": 8,
        "MemorizationTracker": 1,
        "EarlyLearningRegularization": 4 * classes,
        "PencilLoss": 4 * classes,
        "SelectivePositiveLearning": 8 * (window + 1),
        "TruncatedGeneralizedCrossEntropy": 4,
    }
    runs: list[tuple[nn.Module, list[Callback]]] = [
        (nn.CrossEntropyLoss(), [SELC(), LabelWriter("labels.npz"), PosteriorWriter("rows.npz")]),
        (
            nn.CrossEntropyLoss(),
            [GradientSwitching(redraw="epoch"), *(kind(CLEAN) for kind in (GradientBiasTracker, PoolTracker))],
        ),
        (nn.CrossEntropyLoss(), [JointOptimizationLabels(1, window=window), ConfidenceTracker(CLEAN)]),
        (EarlyLearningRegularization(), [LossMemory(), MemorizationTracker(CLEAN), CorrectionTracker(CLEAN)]),
        (PencilLoss(), [LossMemory()]),
        (SelectivePositiveLearning(window=window), [LossMemory()]),
        (TruncatedGeneralizedCrossEntropy(), [LossMemory()]),
    ]
    train_set = IndexedDataset(TensorDataset(make_tensors(SAMPLES)[0], NOISY))
    found = {}
    for criterion, callbacks in runs:
        module = ForeignModule()
        module.criterion = criterion  # type: ignore[assignment]
        trainer = make_trainer(tmp_path, callbacks, 1)
        trainer.fit(module, ResumableLoader(train_set, batch_size=BATCH, sampler=EpochSampler(train_set)))
        for section in RunDriver.of(trainer).sections.values():
            found[section.owner] = sum(store.nbytes for store in section.stores.values()) / SAMPLES
    assert found == expected
