"""Masks of two processes: equal to each other, and to those of one process with the global batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.heads import CosineHead, DropConnectHead, KANHead
from tests.distributed import Pool

INPUTS, FEATURES, CLASSES = 6, 7, 5
SIZES = (8, 8, 6, 3)  # rows of the batches of an epoch, over all processes
EPOCHS = 3
STEPS = len(SIZES) * EPOCHS
TERMS = {"linear": 1, "cosine": 1, "kan": 8}
HEADS = tuple(f"heads.{name}" for name in TERMS)


class Shares(Sampler[list[int]]):
    """Each batch in unequal parts: two thirds for rank 0, the rest for rank 1; all for a process that is alone."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return len(SIZES)

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for size in SIZES:
            middle = size if self.processes == 1 else 2 * size // 3
            yield list(range(start, start + middle) if self.rank == 0 else range(start + middle, start + size))
            start += size


class Module(LightningModule):
    def __init__(self, idle: bool, processes: int) -> None:
        super().__init__()
        self.idle, self.processes = idle, processes
        self.body = nn.Sequential(nn.Linear(INPUTS, FEATURES), nn.Tanh())
        self.heads = nn.ModuleDict(
            {
                "linear": nn.Linear(FEATURES, CLASSES),
                "cosine": CosineHead(FEATURES, CLASSES, temperature=4.0),
                "kan": KANHead(FEATURES, CLASSES, grid_size=4, scale_noise=4.0),
            }
        )

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        features = self.body(batch[0])
        losses = [F.cross_entropy(head(features), batch[1], reduction="sum") for head in self.heads.values()]
        if self.idle and self.global_rank == 1 and batch_idx == 1:
            return features.sum()
        # DDP takes the mean over processes of these shares of the global batch's mean.
        return torch.stack(losses).sum() * self.processes / SIZES[batch_idx]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.5)


class Watch(Callback):
    """Masks of each batch, and the numbers that its all-reduces add up; comes after the callbacks it watches."""

    def __init__(self) -> None:
        self.masks: dict[str, list[Tensor]] = {name: [] for name in TERMS}
        self.reduced: list[list[int]] = []
        self._inside = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        self.reduced.append([])
        self._inside = True

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, head in pl_module.heads.items():  # type: ignore[union-attr, operator]
            self.masks[name].append(head.edge_mask.clone())

    def on_train_batch_end(self, *rest: Any) -> None:
        self._inside = False

    def count(self, tensor: Tensor) -> None:
        if self._inside:
            self.reduced[-1].append(tensor.numel())


@dataclass(frozen=True)
class Run:
    """What a training run is made of."""

    masks: tuple[dict[str, Any], ...]
    accumulated: int = 1
    dtype: torch.dtype = torch.float64
    seeds: tuple[int, int] = (3, 3)
    idle: bool = False
    folder: Path | None = None
    resume: str | None = None

    @property
    def strategy(self) -> str:
        return "ddp_find_unused_parameters_true" if self.idle else "ddp"


def fit(rank: int, run: Run, processes: int = 2) -> dict[str, Any]:
    """Train, and tell everything about it. Run by both processes of the pool, or here as the only one."""
    torch.manual_seed(7)
    module = Module(run.idle, processes).to(run.dtype)
    x = torch.randn(sum(SIZES), INPUTS).to(run.dtype)
    data = TensorDataset(x, torch.randint(CLASSES, (sum(SIZES),)))
    watch = Watch()
    checkpoint = ModelCheckpoint(run.folder, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=run.strategy if processes > 1 else "auto",
        max_epochs=EPOCHS,
        accumulate_grad_batches=run.accumulated,
        callbacks=[*(MaskRefresh(**options) for options in run.masks), watch, *([checkpoint] if run.folder else [])],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=run.folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    all_reduce = dist.all_reduce

    def counted(tensor: Tensor, *args: Any, **options: Any) -> Any:
        watch.count(tensor)
        return all_reduce(tensor, *args, **options)

    torch.manual_seed(rank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        patch.setenv("PL_GLOBAL_SEED", str(run.seeds[rank]))
        trainer.fit(module, DataLoader(data, batch_sampler=Shares(rank, processes)), ckpt_path=run.resume)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kept = [callback.state_dict() for callback in callbacks if isinstance(callback, MaskRefresh)]
    return {"weights": dict(module.state_dict()), "masks": watch.masks, "reduced": watch.reduced, "kept": kept}


def same(actual: Any, expected: Any, **tolerance: float) -> None:
    options: Any = tolerance or {"rtol": 0.0, "atol": 0.0}
    torch.testing.assert_close(actual, expected, **options)


def mask(score: str, granularity: str = "node", head: Any = HEADS, **options: Any) -> dict[str, Any]:
    return {"head": head, "ratio": 0.5, "score": score, "granularity": granularity, **options}


MOMENTS = {name: terms * (terms + 1) // 2 + terms for name, terms in TERMS.items()}
STATISTICS = {
    "nothing": [],
    "moments of kan": [MOMENTS["kan"] * FEATURES + 1],
    "moments": [moments * FEATURES + 1 for moments in MOMENTS.values()],
    "edges": [CLASSES * FEATURES + 1] * 3,
    "gradient": [CLASSES * terms * FEATURES for terms in TERMS.values()],
}
"""What processes add up for one renewal of all heads: at most one tensor each, whose size is not the batch's."""

CASES: dict[str, tuple[Run, str, list[int]]] = {
    "std-node": (Run((mask("std"),)), "moments of kan", list(range(STEPS))),
    "std-edge": (Run((mask("std", "edge"),)), "moments", list(range(STEPS))),
    "activation-every-3": (Run((mask("activation", "edge", every_n_steps=3),)), "moments", [0, 3, 6, 9]),
    "obd-accumulated": (Run((mask("obd"),), accumulated=2), "edges", [0, 2, 4, 6, 8, 10]),
    "obd-epochs": (Run((mask("obd", "edge", every_n_epochs=2),)), "edges", [0, 8]),
    "gradient": (Run((mask("gradient", "edge"),)), "gradient", list(range(STEPS))),
    "gradient-accumulated": (Run((mask("gradient"),), accumulated=3), "gradient", [2, 3, 6, 7, 10, 11]),
    "gradient-every-3": (Run((mask("gradient", every_n_steps=3),)), "gradient", [2, 5, 8, 11]),
    "gradient-epochs": (Run((mask("gradient", every_n_epochs=2),), accumulated=2), "gradient", [7]),
    "magnitude": (Run((mask("magnitude", "edge"),)), "nothing", []),
    "signed": (Run((mask("signed"),)), "nothing", []),
    "random": (Run((mask("random", "edge"),)), "nothing", []),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_masks_of_one(pool: Pool, case: str) -> None:
    run, statistics, renewed = CASES[case]
    running = pool.start(fit, run)
    alone = fit(0, run, processes=1)
    ranks = running()
    same(ranks[1]["weights"], ranks[0]["weights"])
    same(ranks[0]["weights"], alone["weights"], rtol=1e-9, atol=1e-12)
    for rank in ranks:
        same(rank["masks"], alone["masks"])
        same(rank["kept"], alone["kept"], rtol=1e-9, atol=1e-12)
        wanted = [STATISTICS[statistics] if step in renewed else [] for step in range(STEPS)]
        assert rank["reduced"] == wanted
    for masks in alone["masks"].values():
        assert len(masks) == STEPS
        assert any(not torch.equal(one, masks[0]) for one in masks)


@pytest.mark.parametrize("score", ["std", "obd", "gradient"])
def test_float32_masks_are_equal_on_both(pool: Pool, score: str) -> None:
    first, second = pool.run(fit, Run((mask(score, "edge"),), dtype=torch.float32))
    same(first, second)


def test_random_masks_are_equal_where_processes_are_seeded_apart(pool: Pool) -> None:
    run = Run((mask("random"),), seeds=(3, 4))
    first, second = pool.run(fit, run)
    same(first["masks"], second["masks"])
    same(first["masks"], fit(0, run, processes=1)["masks"])


def test_a_process_without_a_gradient_keeps_no_other_waiting(pool: Pool) -> None:
    first, second = pool.run(fit, Run((mask("gradient"),), idle=True))
    same(first["masks"], second["masks"])
    assert first["reduced"] == [STATISTICS["gradient"]] * STEPS


def test_a_resume_has_the_masks_of_the_uninterrupted_run(pool: Pool, tmp_path: Path) -> None:
    masks = (
        mask("gradient", head="heads.kan", every_n_steps=3),
        mask("obd", head="heads.linear", every_n_steps=5),
        mask("random", head="heads.cosine", every_n_epochs=2),
    )
    run = Run(masks, folder=tmp_path)
    whole = pool.run(fit, run)
    for epoch in range(EPOCHS - 1):
        again = replace(run, folder=tmp_path / f"{epoch}", resume=str(tmp_path / f"epoch={epoch}.ckpt"))
        for before, after in zip(whole, pool.run(fit, again), strict=True):
            same(after["weights"], before["weights"])
            done = (epoch + 1) * len(SIZES)
            same(after["masks"], {name: seen[done:] for name, seen in before["masks"].items()})
            assert after["reduced"] == before["reduced"][done:]


def drop_connect(rank: int) -> tuple[list[Tensor], Tensor]:
    """The outputs of a head in a few passes, whose processes are seeded apart, and its gradient in the last."""
    torch.manual_seed(1)
    head, x = DropConnectHead(FEATURES, CLASSES), torch.eye(FEATURES)
    torch.manual_seed(rank)
    outputs = [head(x) for _ in range(3)]
    outputs[-1].sum().backward()
    assert head.weight.grad is not None
    return [output.detach() for output in outputs], head.weight.grad


def test_dropped_connections_are_equal_where_processes_are_seeded_apart(pool: Pool) -> None:
    first, second = pool.run(drop_connect)
    same(first, second)
    same(first, drop_connect(0))
    assert not torch.equal(first[0][0], first[0][1])
