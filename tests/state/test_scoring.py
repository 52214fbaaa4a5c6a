"""A pass over the training set: each sample once, as it is evaluated, and nothing is different afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from lightning_noisy.data import IndexedDataset
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.modules import NoisyLabelModule
from lightning_noisy.networks import SmallCNN
from lightning_noisy.state import scoring
from tests.distributed import Pool
from tests.foreign import make_trainer
from tests.small import NUM_CLASSES, SmallDataModule, assert_same

SAMPLES = 40


class Scoring(NoisyLabelModule):
    """Scores before each epoch from ``first`` on, and notes what it saw."""

    def __init__(self, training: bool = False, look: Callable[..., Any] | None = None) -> None:
        torch.manual_seed(0)
        backbone = SmallCNN(width=4, num_features=8, dropout=0.3)
        super().__init__(backbone, LinearHead, nn.CrossEntropyLoss(), NUM_CLASSES)
        self.training_pass, self.look = training, look
        self.images: list[Tensor] = []
        self.indices: list[list[int]] = []
        self.trained: list[int] = []

    def prepare_epoch(self, epoch: int) -> None:
        self.images, passed = [], []

        def measure(batch: Any) -> dict[str, Tensor]:
            assert not torch.is_grad_enabled()
            self.images.append(batch.images)
            passed.extend(batch.index.tolist())
            logits = self.network(batch.images)
            if self.look is not None:
                self.look(self, batch, logits)
            return {"logits": logits, "place": 10 * batch.index + epoch, "odd": batch.index % 2 == 1}

        self.score(measure, training=self.training_pass)
        self.indices.append(passed)

    def step(self, batch: Any) -> Tensor:
        self.trained.extend(batch.index.tolist())
        return super().step(batch)


def fit(folder: Path, module: Scoring, *callbacks: Callback, **options: Any) -> dict[str, Tensor]:
    """What is kept of each sample after the fit."""
    options = {"max_epochs": 1, **options}
    ckpt_path = options.pop("ckpt_path", None)
    trainer = make_trainer(folder, callbacks, **options)
    trainer.fit(module, datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
    return {name: store.values for name, store in module.section.stores.items()}


def test_every_sample_once_in_order_as_it_is_evaluated(tmp_path: Path) -> None:
    module = Scoring(look=lambda own, batch, logits: modes.append(any(part.training for part in own.modules())))
    modes: list[bool] = []
    kept = fit(tmp_path, module, max_epochs=2)
    assert module.indices == [list(range(SAMPLES))] * 2
    assert kept["place"].tolist() == [10 * i + 1 for i in range(SAMPLES)]
    assert kept["odd"].tolist() == [False, True] * (SAMPLES // 2)
    assert (kept["place"].dtype, kept["odd"].dtype) == (torch.int64, torch.bool)
    data = SmallDataModule(seed=0)
    data.setup("fit")
    assert torch.equal(torch.cat(module.images), torch.cat([images for images, *_ in data.scoring_loader()]))
    assert not any(modes)
    assert sorted(module.trained) == sorted(2 * list(range(SAMPLES)))


class Surroundings(Callback):
    """Modes, buffers and the random stream just before and after a pass."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def note(self, module: nn.Module) -> None:
        modes = {name: part.training for name, part in module.named_modules()}
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        self.seen.append((modes, buffers, torch.get_rng_state()))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_different_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: bool, fails: bool
) -> None:
    around = Surroundings()

    def score(self: Scoring, *args: Any, **options: Any) -> None:
        self.network.backbone.eval()  # as someone has set it, part by part
        around.note(self)
        try:
            original(self, *args, **options)
        finally:
            around.note(self)

    def look(own: Scoring, batch: Any, logits: Tensor) -> None:
        torch.rand(3)
        assert own.network.backbone.training == training
        if fails and batch.index[0] > 20:
            raise KeyError("as it may")

    original = Scoring.score
    monkeypatch.setattr(Scoring, "score", score)
    module = Scoring(training, look)
    if fails:
        with pytest.raises(KeyError, match="as it may"):
            fit(tmp_path, module)
    else:
        fit(tmp_path, module)
    before, after = around.seen
    assert_same(before[0], after[0])
    assert_same(before[1], after[1])
    assert torch.equal(before[2], after[2])
    assert len(before[1]) >= 3


def test_train_mode_normalizes_by_the_batch(tmp_path: Path) -> None:
    means: list[Tensor] = []

    def look(own: Scoring, batch: Any, logits: Tensor) -> None:
        means.append(next(value.clone() for name, value in own.named_buffers() if "running_mean" in name))

    fit(tmp_path, Scoring(True, look))
    assert not torch.equal(means[0], means[1])
    means.clear()
    fit(tmp_path, Scoring(False, look))
    assert torch.equal(means[0], means[1])


@pytest.mark.parametrize(
    ("precision", "images", "logits", "kept"),
    [
        ("32-true", torch.float32, torch.float32, torch.float32),
        ("64-true", torch.float64, torch.float64, torch.float64),
        ("bf16-true", torch.bfloat16, torch.bfloat16, torch.float32),
        ("bf16-mixed", torch.float32, torch.bfloat16, torch.float32),
    ],
)
def test_precision_is_that_of_the_trainer(
    tmp_path: Path, precision: str, images: torch.dtype, logits: torch.dtype, kept: torch.dtype
) -> None:
    types: set[tuple[torch.dtype, torch.dtype]] = set()
    module = Scoring(look=lambda own, batch, said: types.add((batch.images.dtype, said.dtype)))
    assert fit(tmp_path, module, precision=precision)["logits"].dtype == kept
    assert types == {(images, logits)}


@pytest.mark.parametrize(("step", "epochs", "passes"), [(7, 2, 0), (10, 3, 1)], ids=["inside", "end"])
def test_a_resume_does_not_look_again(tmp_path: Path, step: int, epochs: int, passes: int) -> None:
    """Epochs of five batches: after 7 the second one goes on, after 10 the third one begins."""
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(tmp_path, Scoring(), checkpoint, max_epochs=epochs, enable_checkpointing=True)
    saved = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
    torch.save(saved, tmp_path / "kept.ckpt")
    resumed = Scoring()
    kept = fit(tmp_path, resumed, max_epochs=epochs, ckpt_path=tmp_path / "kept.ckpt")
    assert len(resumed.indices) == passes
    assert torch.equal(kept["place"], whole["place"])


def test_without_a_data_module_it_is_the_set_of_the_loader_in_order(tmp_path: Path) -> None:
    x, y = torch.randn(11, 1, 8, 8), torch.arange(11) % NUM_CLASSES
    module = Scoring()
    loader = DataLoader(
        IndexedDataset(TensorDataset(x, y)),
        batch_size=4,
        shuffle=True,
        collate_fn=lambda rows: tuple(map(_stacked, zip(*rows, strict=True))),
    )
    make_trainer(tmp_path, max_epochs=1).fit(module, loader)
    assert module.indices == [list(range(11))]
    assert [len(images) for images in module.images] == [4, 4, 3]
    assert torch.equal(torch.cat(module.images), x + 1)


def _stacked(column: Any) -> Tensor:
    return (
        torch.stack(column) + 1
        if isinstance(column[0], Tensor) and column[0].ndim
        else torch.tensor(list(map(int, column)))
    )


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(1, 8, 8), 0, 0)] * 4)


def test_a_stream_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(NoisyLabelError, match="stream"):
        trainer.fit(Scoring(), DataLoader(Stream(), batch_size=2))


def test_a_part_of_the_samples_has_to_be_numbered_alone(tmp_path: Path) -> None:
    whole, rows = TensorDataset(torch.randn(9, 1, 8, 8), torch.arange(9) % NUM_CLASSES), [7, 2, 5]
    with pytest.raises(NoisyLabelError, match="each of 9 training samples, but the loader reads 3 of them"):
        make_trainer(tmp_path).fit(Scoring(), DataLoader(Subset(IndexedDataset(whole), rows)))
    module = Scoring()
    make_trainer(tmp_path, max_epochs=1).fit(module, DataLoader(IndexedDataset(Subset(whole, rows)), batch_size=2))
    assert torch.equal(torch.cat(module.images), whole.tensors[0][rows])


@pytest.mark.parametrize("enabled", [True, False])
def test_a_bar_is_shown_where_the_trainer_shows_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    shown: list[bool] = []

    def bar(loader: Any, *args: Any, disable: bool, **options: Any) -> Any:
        shown.append(not disable)
        return loader

    monkeypatch.setattr(scoring, "tqdm", bar)
    fit(tmp_path, Scoring(), enable_progress_bar=enabled, limit_train_batches=1)
    assert shown == [enabled]


def score_on(rank: int, folder: str) -> tuple[list[list[int]], dict[str, Tensor], bool]:
    torch.set_num_threads(1)
    trainer = make_trainer(folder, max_epochs=2, devices=2, strategy="ddp")
    module = Scoring()
    trainer.fit(module, datamodule=SmallDataModule(seed=0, num_samples=49, batch_size=4))
    rows = {name: store.values for name, store in module.section.stores.items()}
    return module.indices, rows, isinstance(trainer, Trainer)


def test_processes_share_the_pass_and_know_all_rows(pool: Pool, tmp_path: Path) -> None:
    """41 samples, so that parts have different lengths."""
    (first, rows, _), (second, others, _) = pool.run(score_on, str(tmp_path))
    for epoch in range(2):
        assert sorted(first[epoch] + second[epoch]) == list(range(41))
    assert_same(rows, others)
    assert rows["odd"].tolist() == [bool(i % 2) for i in range(41)]
    assert rows["place"].tolist() == [10 * i + 1 for i in range(41)]
