"""Two processes against one: same weights, same tables, same figures, and a resume without a trace."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision.transforms import v2

from lightning_noisy.callbacks import (
    CDR,
    SELC,
    AttentionTracker,
    ConfidenceTracker,
    CorrectionTracker,
    DALSchedule,
    GradientBiasTracker,
    GradientErrorTracker,
    GradientShareTracker,
    GradientSwitching,
    MaskRefresh,
    MaskTracker,
    MemorizationTracker,
    ParameterSchedule,
    PoolTracker,
    StepSeed,
    TrainingDynamics,
)
from lightning_noisy.data import IndexedDataset, SymmetricNoise
from lightning_noisy.data.module import LabeledImages, NoisyDataModule
from lightning_noisy.data.samplers import EvaluationSampler
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import (
    DynamicsAwareLoss,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    NoiseAttentionLoss,
)
from lightning_noisy.modules import NoisyLabelModule
from lightning_noisy.state import EpochSums, RunDriver, SampleStore, exchange
from tests.distributed import Pool, RemoteError

CLASSES, PIXELS = 5, 16
SAMPLES, BATCH, EPOCHS = 48, 12, 3
STEPS = SAMPLES // BATCH  # of an epoch
PADDED, PADDED_BATCH = 41, 7  # of one process: 21 samples a rank, 3 batches
TEST_SAMPLES = 13
MOMENTUM = 0.9
SEED = 11  # of the run


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return x, (x.flatten(1)[:, :CLASSES] * 2).argmax(dim=1)


class Data(NoisyDataModule):
    num_classes = CLASSES

    def __init__(self, samples: int, batch_size: int) -> None:
        super().__init__(SymmetricNoise(0.4), batch_size=batch_size, seed=3)
        self.samples = samples

    def training_images(self) -> LabeledImages:
        x, y = images(self.samples, 0)
        return LabeledImages(x.__getitem__, y)

    def test_images(self) -> LabeledImages:
        x, y = images(TEST_SAMPLES, 1)
        return LabeledImages(x.__getitem__, y)

    def training_transform(self) -> Callable[[Any], Tensor]:
        return v2.RandomCrop(4, padding=1)

    def evaluation_transform(self) -> Callable[[Any], Tensor]:
        return v2.Identity()


class Backbone(nn.Module):
    num_features = 8

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Foreign(LightningModule):
    """A project that has never heard of the package."""

    def __init__(self, criterion: nn.Module | None, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh(), nn.Dropout(dropout))
        self.classifier = nn.Linear(8, CLASSES)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, _ = batch
        return self.criterion(self.classifier(self.layers(x)), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/loss", F.cross_entropy(self.classifier(self.layers(x)), y), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.6, momentum=0.9)


class Figures(Logger):
    """Keeps the last value of each figure of each epoch."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.epochs: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        epoch = int(metrics["epoch"])
        kept = {name: value for name, value in metrics.items() if name not in ("epoch", "train/loss_step")}
        self.epochs.setdefault(epoch, {}).update(kept)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Recorder(Callback):
    """Notes what the criterion gets in each training batch: index, logits, target, and the mask of the classifier."""

    def __init__(self, criterion: str, head: str) -> None:
        self.names = criterion, head
        self.calls: list[dict[str, Any]] = []
        self.validation_masks: list[Tensor | None] = []
        self._handle: Any = None
        self._batch: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        criterion, head = (pl_module.get_submodule(name) for name in self.names)

        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            if self._batch is not None:
                mask = getattr(head, "edge_mask", None)
                epoch, index = self._batch
                values = {"index": index, "logits": args[0].detach(), "target": args[1], "mask": mask}
                copies = {name: None if value is None else value.clone() for name, value in values.items()}
                self.calls.append({"epoch": epoch, **copies})

        # Fit has started for the other callbacks: this hook comes after theirs and sees their target.
        self._handle = criterion.register_forward_pre_hook(note)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = trainer.current_epoch, batch[2]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        self._batch = None

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        mask = getattr(pl_module.get_submodule(self.names[1]), "edge_mask", None)
        self.validation_masks.append(None if mask is None else mask.clone())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._handle.remove()


class BlindTracker(ConfidenceTracker):
    """Does not ask the data module for clean labels."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._clean = None


Parts = tuple[nn.Module | None, list[Callback]]


def clean_of(samples: int, foreign: bool) -> Tensor | None:
    """Clean labels: our data module knows its own."""
    return images(samples, 0)[1] if foreign else None


CASES: dict[str, Callable[[bool, int], Parts]] = {
    "selc": lambda foreign, n: (None, [SELC(MOMENTUM, warmup_epochs=1, clean_targets=clean_of(n, foreign))]),
    "selc-now": lambda foreign, n: (None, [SELC(MOMENTUM)]),
    "selc-floor": lambda foreign, n: (None, [SELC(MOMENTUM, every_n_epochs=2, floor=1e-3)]),
    "selc-attention": lambda foreign, n: (
        NoiseAttentionLoss(attention="confidence" if foreign else "branch"),
        [SELC(MOMENTUM, floor=1e-4, attention_threshold=0.45)],
    ),
    "switching": lambda foreign, n: (None, [GradientSwitching(seed=5)]),
    "switching-zeros": lambda foreign, n: (
        None,
        [GradientSwitching(initial_pool="zeros", confidence="max", redraw="epoch", seed=5)],
    ),
    "confidence": lambda foreign, n: (None, [ConfidenceTracker(clean_targets=clean_of(n, foreign))]),
    "confidence-blind": lambda foreign, n: (None, [BlindTracker()]),
    "memorization": lambda foreign, n: (
        None,
        [MemorizationTracker(clean_targets=clean_of(n, foreign)), TrainingDynamics(unaugmented=not foreign)],
    ),
    "trackers": lambda foreign, n: (
        None,
        [
            GradientSwitching(seed=5),
            GradientErrorTracker(clean_of(n, foreign), layer="layers.1" if foreign else None, every_n_steps=2),
            GradientShareTracker(clean_of(n, foreign), every_n_steps=2),
            GradientBiasTracker(clean_of(n, foreign)),
            CorrectionTracker(clean_of(n, foreign)),
            PoolTracker(clean_of(n, foreign)),
        ],
    ),
    "attention": lambda foreign, n: (
        NoiseAttentionLoss(attention="confidence" if foreign else "branch"),
        [AttentionTracker(clean_of(n, foreign))],
    ),
    "cdr": lambda foreign, n: (None, [CDR(0.4)]),
    "mask-tracker": lambda foreign, n: (
        None,
        [MaskTracker(head_name(foreign)), MaskRefresh(head_name(foreign), ratio=0.5)],
    ),
    "mask": lambda foreign, n: (None, [MaskRefresh(head_name(foreign), ratio=0.5)]),
    "mask-3": lambda foreign, n: (None, [MaskRefresh(head_name(foreign), ratio=0.5, every_n_steps=3)]),
    "mask-always": lambda foreign, n: (
        None,
        [MaskRefresh(head_name(foreign), ratio=0.5, every_n_epochs=2, apply_in="always")],
    ),
    "gce": lambda foreign, n: (
        GeneralizedCrossEntropy(q=0.5),
        [ParameterSchedule(f"{criterion_name(foreign)}.q", 0.3, 0.9, interval="step")],
    ),
    "dal": lambda foreign, n: (DynamicsAwareLoss(q=0.8), [DALSchedule(q_start=0.8)]),
    "elr": lambda foreign, n: (EarlyLearningRegularization(), []),
    "all": lambda foreign, n: (
        nn.CrossEntropyLoss() if foreign else NoiseAttentionLoss(lam=0.5),
        [
            MaskRefresh(head_name(foreign), ratio=0.6),
            SELC(MOMENTUM, clean_targets=clean_of(n, foreign)),
            ParameterSchedule("criterion.label_smoothing" if foreign else "loss.lam", 0.1, 0.5),
            ConfidenceTracker(clean_targets=clean_of(n, foreign)),
        ],
    ),
}
PAIRS = [(case, foreign) for case in CASES for foreign in (False, True) if (case, foreign) != ("elr", True)]
NAMES = [f"{case}-{'foreign' if foreign else 'ours'}" for case, foreign in PAIRS]
every_case = pytest.mark.parametrize(("case", "foreign"), PAIRS, ids=NAMES)


def head_name(foreign: bool) -> str:
    return "classifier" if foreign else "network.head"


def criterion_name(foreign: bool) -> str:
    return "criterion" if foreign else "loss"


@dataclass(frozen=True)
class Fit:
    """What one training run is made of."""

    case: str
    foreign: bool
    samples: int = SAMPLES
    batch: int = BATCH  # of all processes together
    epochs: int = EPOCHS
    dropout: float = 0.0
    validate: bool = True
    folder: Path | None = None  # checkpoints are written there
    every_n_steps: int = 2
    resume: str | None = None
    validate_every_n_steps: int | None = None


def fit(rank: int, run: Fit, processes: int = 2) -> dict[str, Any]:
    """Train, and tell everything about it. Run by both processes of the pool, or here as the only one."""
    criterion, methods = CASES[run.case](run.foreign, run.samples)
    torch.manual_seed(7)
    if run.foreign:
        module: Any = Foreign(criterion, run.dropout).double()
        data = foreign_loaders(run, processes)
    else:
        loss = nn.CrossEntropyLoss() if criterion is None else criterion
        optimizer = partial(torch.optim.SGD, lr=0.6, momentum=0.9)
        module = NoisyLabelModule(Backbone(run.dropout), LinearHead, loss, CLASSES, optimizer=optimizer).double()
        data = {"datamodule": Data(run.samples, run.batch // processes)}
    recorder, figures = Recorder(criterion_name(run.foreign), head_name(run.foreign)), Figures()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=run.epochs,
        callbacks=[StepSeed(4), *methods, recorder, *checkpoints(run)],
        logger=figures,
        log_every_n_steps=3,
        limit_val_batches=None if run.validate else 0,
        val_check_interval=run.validate_every_n_steps,
        num_sanity_val_steps=0,
        enable_checkpointing=run.folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    assert trainer.world_size == processes
    torch.manual_seed(rank)  # the start of each rank's stream must not matter
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", str(SEED))  # what Lightning's sampler takes
        trainer.fit(module, ckpt_path=run.resume, **data)
    assert trainer.global_step == run.epochs * -(-run.samples // run.batch)
    return {
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "tables": tables_of(trainer),
        "dynamics": [method.dynamics.table.rows for method in methods if isinstance(method, TrainingDynamics)],
        "history": [getattr(method, "history", {}) for method in methods],
        "states": [{k: v for k, v in method.state_dict().items() if k != "stores"} for method in methods],
        "figures": figures.epochs,
        "calls": recorder.calls,
        "validation_masks": recorder.validation_masks,
    }


def tables_of(trainer: Trainer) -> dict[str, Tensor]:
    sections = RunDriver.of(trainer).sections.values()
    return {f"{section.owner}.{name}": t.values for section in sections for name, t in section.stores.items()}


def foreign_loaders(run: Fit, processes: int) -> dict[str, DataLoader[Any]]:
    x, clean = images(run.samples, 0)
    noisy = SymmetricNoise(0.4).corrupt(clean, CLASSES, 3)
    size = run.batch // processes
    dataset = IndexedDataset(TensorDataset(x, noisy))
    # Under DDP Lightning puts its own sampler in, which shuffles; a single process gets the same order here.
    sampler = DistributedSampler(dataset, 1, 0, shuffle=True, seed=SEED) if processes == 1 else None
    train = DataLoader(dataset, batch_size=size, sampler=sampler)
    return {
        "train_dataloaders": train,
        "val_dataloaders": DataLoader(TensorDataset(*images(2 * PIXELS, 1)), batch_size=size),
    }


def checkpoints(run: Fit) -> list[Callback]:
    """Written after a batch, inside validation (another `mode` tells its state apart), and at the end of an epoch."""
    if run.folder is None:
        return []
    save = partial(ModelCheckpoint, run.folder, save_top_k=-1)
    return [
        save(filename="{step}", every_n_train_steps=run.every_n_steps),
        save(filename="val-{step}", every_n_epochs=1, save_on_train_epoch_end=False, mode="max"),
        save(filename="end-{epoch}", every_n_epochs=1, save_on_train_epoch_end=True),
    ]


def start_fit(pool: Pool, run: Fit) -> Callable[[], list[dict[str, Any]]]:
    return pool.start(fit, run)


def same(actual: Any, expected: Any, **tolerance: float) -> None:
    """Nested equality; bit for bit without a tolerance."""
    options: Any = tolerance or {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(actual, expected, equal_nan=True, **options)


CLOSE = {"rtol": 1e-6, "atol": 1e-7}  # tables are float32: their rounding feeds back into float64 weights


def same_run(actual: dict[str, Any], expected: dict[str, Any], **tolerance: float) -> None:
    for part in ("weights", "optimizer", "tables", "dynamics", "history", "states"):
        same(actual[part], expected[part], **tolerance)


def by_step(ranks: list[dict[str, Any]], name: str) -> list[Tensor]:
    """Global batches: position b comes from rank b mod W."""
    steps = zip(*(run["calls"] for run in ranks), strict=True)
    return [torch.stack([call[name] for call in calls], dim=1).flatten(0, 1) for calls in steps]


@every_case
def test_two_processes_equal_one(pool: Pool, case: str, foreign: bool) -> None:
    run = Fit(case, foreign)
    running = start_fit(pool, run)
    alone = fit(0, run, processes=1)
    ranks = running()
    same_run(ranks[1], ranks[0])
    same_run(ranks[0], alone, **CLOSE)
    same(ranks[0]["figures"], alone["figures"], **CLOSE)
    assert set(alone["figures"]) == set(range(EPOCHS))
    if not foreign:
        assert all({"train/loss", "train/acc", "test/acc"} <= set(seen) for seen in alone["figures"].values())
    for name in ("index", "logits", "target"):
        same(by_step(ranks, name), [call[name] for call in alone["calls"]], **CLOSE)
    assert len(alone["calls"]) == EPOCHS * STEPS
    if case in MASKED:
        check_masks(case, ranks, alone)


def check_rows(case: str, ranks: list[dict[str, Any]]) -> None:
    """Each sample has its row, and what counts an epoch is empty at its end."""
    for run in ranks:
        assert not run["tables"] or case not in ("mask", "mask-tracker", "cdr", "gce", "dal")
        for name, values in run["tables"].items():
            if "confidence" in name or name in (
                "PoolTracker.pool",
                "TrainingDynamics.visit",
            ):  # forgotten at the end of an epoch
                assert values.isnan().all(), name
            elif "outcome" in name:
                assert (values == -1).all(), name
            elif "drawn" in name or "labels" in name:
                assert (values >= 0).all(), name
            else:
                assert len(values) == PADDED
                assert values.flatten(1 if values.ndim > 1 else 0).reshape(PADDED, -1).sum(1).gt(0).all(), name
    one = dict.fromkeys(("selc", "selc-now", "selc-floor", "selc-attention", "elr"), 1)
    expected = {**one, "switching": 2, "all": 2, "mask": 0}
    if case in expected:
        assert len(run["tables"]) == expected[case]


MASKED = ("mask", "mask-3", "mask-always", "all")


def check_masks(case: str, ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    masks = [call["mask"] for call in alone["calls"]]
    for rank in ranks:
        same([call["mask"] for call in rank["calls"]], masks)
        kept = {"mask-always": masks[-1]}.get(case)
        assert all((mask is None) == (kept is None) for mask in rank["validation_masks"])
        assert len(rank["validation_masks"]) > 0
    changed = [step for step in range(1, len(masks)) if not masks[step].equal(masks[step - 1])]
    assert changed, "the mask has never changed: this test sees nothing"
    every = {"mask-3": 3, "mask-always": 2 * STEPS}.get(case, 1)
    assert all(step % every == 0 for step in changed)


def passes_of(ranks: list[dict[str, Any]], epoch: int) -> dict[int, list[dict[str, Any]]]:
    """Each time a sample was seen in an epoch: sample -> (given target is not known here) logits and target."""
    passes: dict[int, list[dict[str, Any]]] = {}
    for rank in ranks:
        for call in (call for call in rank["calls"] if call["epoch"] == epoch):
            for position, index in enumerate(call["index"].tolist()):
                seen = {name: call[name][position] for name in ("logits", "target")}
                passes.setdefault(index, []).append(seen)
    return passes


def labels_of(samples: int) -> tuple[Tensor, Tensor]:
    """Given and clean labels of the training set, for both kinds of module."""
    clean = images(samples, 0)[1]
    return SymmetricNoise(0.4).corrupt(clean, CLASSES, 3), clean


def padded(case: str, foreign: bool, **options: Any) -> Fit:
    return Fit(case, foreign, samples=PADDED, batch=2 * PADDED_BATCH, **options)


def check_padding(ranks: list[dict[str, Any]]) -> int:
    """The sample that both ranks have seen, in different passes."""
    assert sum(len(call["index"]) for rank in ranks for call in rank["calls"] if call["epoch"] == 0) == PADDED + 1
    passes = passes_of(ranks, 0)
    assert len(passes) == PADDED
    (twice,) = [index for index, seen in passes.items() if len(seen) == 2]
    first, second = (seen["logits"] for seen in passes[twice])
    assert not torch.allclose(first, second, rtol=1e-3)
    return twice


def one_of(row: Tensor, candidates: list[Tensor], **tolerance: float) -> bool:
    return any(torch.allclose(row.double(), one.double(), **tolerance) for one in candidates)


@every_case
def test_padding_leaves_ranks_equal_and_every_row_written(pool: Pool, case: str, foreign: bool) -> None:
    ranks = pool.run(fit, padded(case, foreign, validate=case == "all"))
    check_padding(ranks)
    check_rows(case, ranks)
    same_run(ranks[1], ranks[0])
    for name in ("train/acc", "train/loss", "target/correction_acc"):
        for epoch in range(EPOCHS):
            ours, theirs = (rank["figures"].get(epoch, {}).get(name) for rank in ranks)
            assert ours == theirs, name


def selc_rows(seen: dict[str, Any], label: Tensor) -> Tensor:
    return MOMENTUM * F.one_hot(label, CLASSES) + (1 - MOMENTUM) * seen["logits"].softmax(0)


def elr_rows(seen: dict[str, Any], label: Tensor) -> Tensor:
    clipped = seen["logits"].softmax(0).clamp(1e-4, 1 - 1e-4)
    return 0.3 * clipped / clipped.sum()


ONE_PASS = {"selc-now": ("SELC.target", selc_rows), "elr": ("EarlyLearningRegularization.prediction", elr_rows)}


@pytest.mark.parametrize("every_n_steps", [None, 1], ids=["", "checkpoint-inside"])
@pytest.mark.parametrize(
    ("case", "foreign"), [("selc-now", False), ("selc-now", True), ("elr", False)], ids=["selc", "selc-foreign", "elr"]
)
def test_padding_counts_once(pool: Pool, tmp_path: Path, case: str, foreign: bool, every_n_steps: int | None) -> None:
    """After one epoch the row is that of one pass, also if ranks have shared their rows between the two passes."""
    saving = {} if every_n_steps is None else {"folder": tmp_path, "every_n_steps": every_n_steps}
    ranks = pool.run(fit, padded(case, foreign, epochs=1, validate=False, **saving))
    name, rows = ONE_PASS[case]
    given, _ = labels_of(PADDED)
    check_padding(ranks)
    for index, seen in passes_of(ranks, 0).items():
        candidates = [rows(one, given[index]) for one in seen]
        assert one_of(ranks[0]["tables"][name][index], candidates, rtol=1e-5, atol=1e-7), index


@pytest.mark.parametrize("every_n_steps", [None, 1], ids=["", "checkpoint-inside"])
@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_padded_pool_grows_once_an_epoch(pool: Pool, tmp_path: Path, foreign: bool, every_n_steps: int | None) -> None:
    saving = {} if every_n_steps is None else {"folder": tmp_path, "every_n_steps": every_n_steps}
    ranks = pool.run(fit, padded("switching", foreign, epochs=2, validate=False, **saving))
    given, _ = labels_of(PADDED)
    check_padding(ranks)
    assert ranks[0]["tables"]["GradientSwitching.visits"].tolist() == [2] * PADDED
    epochs = [passes_of(ranks, epoch) for epoch in range(2)]
    for index in range(PADDED):
        label = F.one_hot(given[index], CLASSES)
        candidates = []
        for choice in itertools.product(*(epoch[index] for epoch in epochs)):
            row = label.double()
            for progress, seen in zip((0.0, 0.5), choice, strict=True):
                p = seen["logits"].softmax(0)
                confidence = p[given[index]]
                row = row + label * confidence * (1 - progress) + progress / CLASSES
                row = row + F.one_hot(p.argmax(), CLASSES) * confidence * 2 * progress
            candidates.append(row)
        assert one_of(ranks[0]["tables"]["GradientSwitching.pool"][index], candidates, rtol=1e-5), index


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
@pytest.mark.parametrize("case", ["confidence", "confidence-blind"])
def test_padded_confidence_is_a_mean_over_samples(pool: Pool, case: str, foreign: bool) -> None:
    run = padded(case, foreign, epochs=2, validate=False)
    ranks = pool.run(fit, run)
    twice = check_padding(ranks)
    given, clean = labels_of(PADDED)
    groups = {"clean": given == clean, "noisy": given != clean}
    if case == "confidence-blind":
        groups = {"all": torch.ones(PADDED, dtype=torch.bool)}
    history = ranks[0]["history"][0]
    assert set(history) == {0, 1}
    for epoch in range(2):
        passes = passes_of(ranks, epoch)
        twice = next(index for index, seen in passes.items() if len(seen) == 2)
        options = []
        for chosen in range(2):
            seen = [passes[index][chosen if index == twice else 0] for index in range(PADDED)]
            confidence = torch.stack([s["logits"].softmax(0)[y] for s, y in zip(seen, given, strict=True)])
            options.append({f"train/conf/{name}": confidence[group].mean().item() for name, group in groups.items()})
        assert history[epoch] in [pytest.approx(option, rel=1e-6) for option in options]


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_padded_memorization_counts_each_sample_once(pool: Pool, foreign: bool) -> None:
    ranks = pool.run(fit, padded("memorization", foreign, epochs=2, validate=False))
    check_padding(ranks)
    given, clean = labels_of(PADDED)
    for epoch in range(2):
        passes = passes_of(ranks, epoch)
        options = []
        for chosen in range(2):
            predicted = torch.stack([passes[i][chosen % len(passes[i])]["logits"].argmax() for i in range(PADDED)])
            noisy, right = given != clean, predicted == clean
            shares = {
                "noisy/correct": right[noisy],
                "noisy/memorized": (predicted == given)[noisy],
                "noisy/other": ((predicted != given) & ~right)[noisy],
                "clean/correct": right[~noisy],
                "clean/wrong": ~right[~noisy],
            }
            options.append({f"train/memorization/{k}": v.double().mean().item() for k, v in shares.items()})
        assert ranks[0]["history"][0][epoch] in [pytest.approx(option) for option in options]


def training_figures(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith(("train/", "target/", "mask/"))}


RESUMES = {
    "first-epoch": ("step=2.ckpt", 2),
    "inside": ("step=6.ckpt", 6),
    "last-batch": ("step=4.ckpt", 4),
    "validation": ("val-step=4.ckpt", 4),
    "end": ("end-epoch=0.ckpt", 4),
}


FROM_EVERYWHERE = ("all", "trackers", "memorization", "switching", "elr")
"""Of each kind of state one: the others resume inside an epoch and at its end, and elsewhere in slow tests."""


@every_case
def test_resume_equals_an_uninterrupted_run(pool: Pool, tmp_path: Path, case: str, foreign: bool) -> None:
    # A foreign loader does not save its position inside an epoch.
    places = ("end",) if foreign else RESUMES if case in FROM_EVERYWHERE else ("inside", "end")
    check_resumes(pool, Fit(case, foreign, dropout=0.2, folder=tmp_path), tmp_path, places)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in FROM_EVERYWHERE])
def test_resume_from_everywhere_equals_an_uninterrupted_run(pool: Pool, tmp_path: Path, case: str) -> None:
    places = [where for where in RESUMES if where not in ("inside", "end")]
    check_resumes(pool, Fit(case, False, dropout=0.2, folder=tmp_path), tmp_path, places)


def check_resumes(pool: Pool, run: Fit, folder: Path, places: Iterable[str]) -> None:
    whole = pool.run(fit, run)
    same_run(whole[1], whole[0])
    for where in places:
        name, step = RESUMES[where]
        saved = torch.load(folder / name, weights_only=True)
        assert saved["global_step"] == step
        resumed = pool.run(fit, replace(run, folder=folder / where, resume=str(folder / name)))
        for rank in range(2):
            same_run(resumed[rank], whole[rank])
            same(resumed[rank]["calls"], whole[rank]["calls"][-len(resumed[rank]["calls"]) :])
            assert len(resumed[rank]["calls"]) == EPOCHS * STEPS - step
            # The figures of an epoch that was saved after its last batch, before its end, are still to come.
            late = {0} if where in ("last-batch", "validation") else set()
            for epoch in {*late, *range(step // STEPS, EPOCHS)}:
                # They are logged in float64, those of other epochs in float32.
                tolerance = {"rtol": 1e-6, "atol": 0.0} if epoch in late else {}
                ours, theirs = (training_figures(run["figures"][epoch]) for run in (resumed[rank], whole[rank]))
                same(ours, theirs, **tolerance)


@pytest.mark.parametrize("writer", ["training", "validation"])
@pytest.mark.parametrize(
    ("case", "foreign"), [("selc-now", False), ("selc-now", True), ("switching", True), ("elr", False)]
)
def test_checkpoint_inside_an_epoch_has_the_rows_of_all_ranks(
    pool: Pool, tmp_path: Path, case: str, foreign: bool, writer: str
) -> None:
    run = Fit(case, foreign, epochs=1, folder=tmp_path, every_n_steps=2 if writer == "training" else 100)
    ranks = pool.run(fit, replace(run, validate_every_n_steps=2))
    saved = torch.load(tmp_path / ("step=2.ckpt" if writer == "training" else "val-step=2.ckpt"), weights_only=True)
    kept = saved["callbacks"]["lightning_noisy"]
    (stores,) = [section["stores"] for section in kept["sections"].values() if section["stores"]]
    seen = torch.cat([call["index"] for rank in ranks for call in rank["calls"][:2]])
    assert len(seen.unique()) == 2 * BATCH
    for name, table in stores.items():
        written = table["values"].reshape(SAMPLES, -1).sum(1) > 0
        assert written.nonzero().squeeze(1).tolist() == seen.sort().values.tolist(), name
    assert kept["open_epoch"] == 0
    if not foreign:
        assert kept["sections"]["module"]["sums"]["weights"] == {"loss": 2 * BATCH, "acc": 2 * BATCH}


def test_a_foreign_run_resumes_inside_an_epoch_with_equal_ranks(pool: Pool, tmp_path: Path) -> None:
    run = Fit("all", True, folder=tmp_path)
    pool.run(fit, run)
    ranks = pool.run(fit, replace(run, folder=tmp_path / "again", resume=str(tmp_path / RESUMES["inside"][0])))
    same_run(ranks[1], ranks[0])


@pytest.mark.parametrize(("case", "foreign"), [("all", False), ("all", True), ("elr", False), ("switching", False)])
def test_validation_inside_an_epoch_changes_nothing(pool: Pool, case: str, foreign: bool) -> None:
    """Ranks share rows and sums there, and go on."""
    plain = pool.run(fit, Fit(case, foreign, validate=False))
    validated = pool.run(fit, Fit(case, foreign, validate_every_n_steps=2))
    for rank in range(2):
        same_run(validated[rank], plain[rank])
        assert len(validated[rank]["validation_masks"]) > EPOCHS
        for epoch in range(EPOCHS):
            ours, theirs = (training_figures(run[rank]["figures"].get(epoch, {})) for run in (validated, plain))
            same(ours, theirs, rtol=1e-6, atol=0.0)


def evaluate(rank: int, processes: int = 2) -> list[dict[str, float]]:
    torch.manual_seed(7)
    module = NoisyLabelModule(Backbone(0.0), LinearHead, nn.CrossEntropyLoss(), CLASSES).double()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer.test(module, datamodule=Data(SAMPLES, 6 // processes), verbose=False)


def test_evaluation_counts_each_sample_once(pool: Pool) -> None:
    (alone,) = evaluate(0, processes=1)
    for (ours,) in pool.run(evaluate):
        assert ours["test/acc"] == alone["test/acc"]
        assert ours == pytest.approx(alone, rel=1e-6)
    correct = alone["test/acc"] * TEST_SAMPLES
    assert 0 < correct < TEST_SAMPLES
    assert correct == pytest.approx(round(correct), abs=1e-5)


@pytest.mark.parametrize(("count", "world"), [(13, 2), (1, 2), (6, 3), (7, 3), (2, 4)])
def test_evaluation_sampler_covers_the_set(count: int, world: int) -> None:
    dataset = TensorDataset(torch.zeros(count))
    samplers = [EvaluationSampler(dataset, world, rank) for rank in range(world)]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


def dropout_draws(rank: int) -> list[Tensor]:
    draws: list[Tensor] = []
    torch.manual_seed(rank + int.from_bytes(os.urandom(4), "little"))
    module = Foreign(None, dropout=0.5).double()
    module.layers[-1].register_forward_hook(lambda _, args, output: draws.append((output == 0).clone()))
    run = Fit("selc", foreign=True, epochs=2)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        callbacks=[StepSeed(4)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, **foreign_loaders(run, 2))
    return draws


def test_step_seed_draws_differ_between_ranks_but_not_between_runs(pool: Pool) -> None:
    first, second = pool.run(dropout_draws), pool.run(dropout_draws)
    same(first, second)
    draws = [draw.flatten().tolist() for rank in first for draw in rank]
    assert len(draws) == 2 * 2 * STEPS
    assert all(a != b for a, b in itertools.combinations(draws, 2))


Rows = list[list[tuple[list[int], float]]]


def synchronized(
    rank: int, writes: Rows, shape: tuple[int, ...], dtype: torch.dtype, chunk_bytes: int | None, again: int = 0
) -> list[Tensor]:
    """Write ``writes[rank]`` = (rows, value), ..., synchronize; the table after each call, and what is still marked."""
    before = exchange.CHUNK_BYTES
    exchange.CHUNK_BYTES = before if chunk_bytes is None else chunk_bytes
    calls = 0
    gather = dist.all_gather

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return gather(*args, **kwargs)

    dist.all_gather = counted
    try:
        store = SampleStore(9, shape, dtype=dtype)
        for rows, value in writes[rank]:
            noise = 0.3 * torch.arange(len(rows) * max(1, torch.Size(shape).numel())).reshape(len(rows), *shape)
            store.update(torch.tensor(rows, dtype=torch.int64), noise + value)
        results = []
        for _ in range(1 + again):
            store.synchronize()
            results.append(store.values.clone())
    finally:
        exchange.CHUNK_BYTES, dist.all_gather = before, gather
    return [*results, store._touched.clone(), torch.tensor(calls)]


CHUNKS = pytest.mark.parametrize("chunk_bytes", [None, 1, 20, 48], ids=["one", "rows", "few", "some"])


@CHUNKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)], ids=["scalar", "vector", "matrix"])
@pytest.mark.parametrize(
    "writes",
    [
        [[([0, 3], 10.0)], [([8, 2, 5], 20.0)]],
        [[([7, 1, 4, 0, 8], 10.0)], []],
        [[], [([6], 20.0)]],
        [[([0, 1, 2, 3, 4, 5, 6, 7], 10.0)], [([8], 20.0)]],
        [[], []],
    ],
    ids=["different", "rank-0", "rank-1", "uneven", "nothing"],
)
def test_rows_of_all_ranks(
    pool: Pool, writes: Rows, shape: tuple[int, ...], dtype: torch.dtype, chunk_bytes: int | None
) -> None:
    expected = SampleStore(9, shape, dtype=dtype)
    for rows, value in (write for rank in writes for write in rank):
        noise = 0.3 * torch.arange(len(rows) * max(1, torch.Size(shape).numel())).reshape(len(rows), *shape)
        expected.update(torch.tensor(rows, dtype=torch.int64), noise + value)
    for values, again, touched, _ in pool.run(synchronized, writes, shape, dtype, chunk_bytes, 1):
        assert values.dtype == dtype
        same(values, expected.values)
        same(again, expected.values)
        assert not touched.any()


@CHUNKS
@pytest.mark.parametrize(
    "writes",
    [
        [[([4], 10.0)], [([4], 20.0)]],
        [[([0, 1, 2, 3, 8], 10.0)], [([8, 7], 20.0)]],
        [[([0], 10.0)], [([5, 6, 7, 8], 20.0), ([0], 30.0)]],
        [[([5, 6, 8], 10.0)], [([0, 1, 5, 8], 20.0)]],
    ],
)
def test_a_row_of_two_ranks_is_one_of_theirs(pool: Pool, writes: Rows, chunk_bytes: int | None) -> None:
    mine = [synchronized_alone(write) for write in writes]
    first, second = (result[0] for result in pool.run(synchronized, writes, (3,), torch.float32, chunk_bytes))
    same(first, second)
    for row in range(9):
        written = [values[row] for values, rows in mine if row in rows] or [torch.zeros(3)]
        assert any(first[row].equal(candidate) for candidate in written), row


def synchronized_alone(writes: list[tuple[list[int], float]]) -> tuple[Tensor, set[int]]:
    store = SampleStore(9, (3,))
    for rows, value in writes:
        store.update(torch.tensor(rows), 0.3 * torch.arange(3 * len(rows)).reshape(-1, 3) + value)
    return store.values, {row for rows, _ in writes for row in rows}


def test_rows_travel_in_chunks(pool: Pool) -> None:
    """Nine rows of 12 bytes in chunks of 48: two exchanges in chunks, of index and values each."""
    writes: Rows = [[(list(range(9)), 10.0)], [([0], 20.0)]]
    assert [int(calls) for *_, calls in pool.run(synchronized, writes, (3,), torch.float32, 48)] == [6, 6]
    assert [int(calls) for *_, calls in pool.run(synchronized, writes, (3,), torch.float32, None)] == [2, 2]


def twice_synchronized(rank: int) -> list[Tensor]:
    store = SampleStore(4)
    results = []
    for value in (1.0, 2.0):
        if rank == 0:
            store.update(torch.tensor([0, 1]), torch.full((2,), value))
        elif value == 1.0:
            store.update(torch.tensor([1, 2]), torch.full((2,), 5.0))
        store.synchronize()
        results.append(store.values.clone())
    return results


def test_only_rows_written_since_the_last_call_travel(pool: Pool) -> None:
    """A row that rank 1 has sent before must not come back over the newer one of rank 0."""
    for first, second in pool.run(twice_synchronized):
        assert first.tolist() in ([1.0, 1.0, 5.0, 0.0], [1.0, 5.0, 5.0, 0.0])
        assert second.tolist() == [2.0, 2.0, 5.0, 0.0]


def summed(rank: int, how: str) -> tuple[dict[str, float], dict[str, Any], dict[str, float], list[list[int]]]:
    """Sums of both ranks: means, the state that would be saved, the means after one more batch, and counts."""
    sums = EpochSums()
    sums.count(3, label=torch.tensor([rank, 2, 2]))
    sums.add(3, loss=torch.tensor(1.0 + rank), acc=torch.tensor(0.5 * rank))
    sums.add(1, loss=torch.tensor(4.0), acc=torch.tensor(1.0))
    if how in ("merge", "load", "twice"):
        sums.merge()
    if how == "twice":
        sums.merge()
    saved = sums.state_dict()
    if how == "load":
        box = [saved]
        dist.broadcast_object_list(box)  # every rank loads what rank 0 has written
        sums = EpochSums()
        sums.load_state_dict(box[0])
    means, counts = sums.means(), sums.counts()["label"].tolist()
    sums.add(2, loss=torch.tensor(10.0 * rank), acc=torch.tensor(0.0))
    sums.count(3, label=torch.tensor([1]))
    return means, saved, sums.means(), [counts, sums.counts()["label"].tolist()]


@pytest.mark.parametrize("how", ["means", "merge", "twice", "load"])
def test_sums_over_ranks(pool: Pool, how: str) -> None:
    for rank, (means, saved, later, counts) in enumerate(pool.run(summed, how)):
        assert counts == [[1, 1, 4], [1, 3, 4]]
        assert means == {"loss": (3 + 6 + 8) / 8, "acc": (1.5 + 2) / 8}
        assert later == {"loss": (17 + 20) / 12, "acc": 3.5 / 12}
        if how in ("merge", "twice"):
            assert saved["weights"] == dict.fromkeys(("loss", "acc"), 0 if rank else 8)


def failing(rank: int) -> None:
    if rank == 1:
        raise ValueError("rank 1 objects")
    dist.barrier()


def lonely(rank: int) -> None:
    if rank == 0:
        dist.barrier()


def rank_sum(rank: int) -> float:
    total = torch.tensor(float(rank + 1))
    dist.all_reduce(total)
    return total.item()


@pytest.mark.slow
def test_pool_reports_errors_and_deadlocks_and_recovers() -> None:
    pool = Pool()
    try:
        with pytest.raises(RemoteError, match="rank 1 objects"):
            pool.run(failing)
        assert pool.run(rank_sum) == [3.0, 3.0]
        with pytest.raises(RemoteError, match="rank 0 did not return"):
            pool.run(lonely, timeout=3)
        assert pool.run(rank_sum) == [3.0, 3.0]
    finally:
        pool.close()
