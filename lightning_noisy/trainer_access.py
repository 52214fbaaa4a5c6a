"""What is read off a Lightning Trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerState
from torch.optim import LBFGS

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import Callback, data_in_use, is_a


def from_datamodule(trainer: Trainer, name: str) -> Any:
    """An attribute of the data module that the Trainer is running on, None without either."""
    kept = getattr(trainer, "datamodule", None)
    return getattr(kept, name, None) if data_in_use(trainer) is kept else None


def run_folder(trainer: Trainer) -> str | None:
    """Where a run's evidence goes, the same on all processes: its logger's folder, None without one. A collective."""
    folder = trainer.log_dir
    keep = bool(trainer.loggers) and not getattr(trainer, "fast_dev_run", False)
    return folder if keep else None


def in_run_folder(trainer: Trainer, path: str) -> Path:
    """Where a file goes: relative names lie in the run's folder, without one in ``default_root_dir``. A collective."""
    return Path(run_folder(trainer) or trainer.default_root_dir) / Path(path).expanduser()


def run_seed(given: int | None) -> int:
    """A seed as given; None takes the run's (Lightning's ``seed_everything``), else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if given is None else given


def may_run_again(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Whether an optimizer may run the training step of a batch several times; those of torch, but LBFGS, do not."""
    own = type(pl_module).optimizer_step is not LightningModule.optimizer_step
    kinds = [type(optimizer) for optimizer in trainer.optimizers]
    return own or any(kind.__module__.split(".")[:2] != ["torch", "optim"] or kind is LBFGS for kind in kinds)


def backward_factor(trainer: Trainer) -> float:
    """What a Trainer multiplies a step's loss by before its backward pass: accumulation and a scaler of float16."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    scale: float = 1.0 if scaler is None else scaler.get_scale()
    return scale / trainer.accumulate_grad_batches


def log_interval(trainer: Trainer) -> int:
    """Batches between two logging steps of a Trainer, at least 1: where values are read back anyway."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return max(1, interval)


def log_late(trainer: Trainer, metrics: dict[str, float], epoch: int) -> None:
    """Log metrics of an epoch that is over, rounded to float32 as Lightning's own logging does."""
    rounded = {name: torch.tensor(value, dtype=torch.float32).item() for name, value in metrics.items()}
    for logger in trainer.loggers if metrics else ():
        logger.log_metrics({**rounded, "epoch": epoch}, step=trainer.global_step)


LoaderPath = tuple[Any, ...]
"""Where a training loader stands in the dict or list of them; empty for the only one."""


def named_loaders(trainer: Trainer) -> dict[LoaderPath, Any]:
    """The training loaders of a Trainer, one or several, by their places, in Lightning's order."""
    return dict(_leaves(trainer.train_dataloader))


def training_loaders(trainer: Trainer) -> list[Any]:
    """The training loaders of a Trainer, one or several, in a flat list."""
    return list(named_loaders(trainer).values())


def loaders_in(tree: Any) -> list[Any]:
    """The loaders in a dict, list or CombinedLoader of them, or the only one."""
    return [loader for _, loader in _leaves(tree)]


def check_not_sharded(trainer: Trainer, what: str) -> None:
    """Refuse strategies under which no process has a whole weight and its whole gradient.

    Args:
        trainer: The trainer.
        what: What cannot be done then, for the message: "MaskRefresh cannot mask `head`".

    Raises:
        NoisyLabelError: FSDP, model parallel or DeepSpeed.
    """
    if is_a(trainer.strategy, "FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy"):
        raise NoisyLabelError(
            f"{what} under {type(trainer.strategy).__name__}, which shards its weights or gradients: use "
            "strategy='ddp'."
        )


def _leaves(tree: Any, path: LoaderPath = ()) -> Iterator[tuple[LoaderPath, Any]]:
    if is_a(tree, "CombinedLoader"):
        yield from _leaves(tree.iterables, path)
    elif isinstance(tree, Mapping):
        for name, part in tree.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(tree, (list, tuple)):
        for position, part in enumerate(tree):
            yield from _leaves(part, (*path, position))
    else:
        yield path, tree


def stand_in_trainer(callbacks: list[Callback], rank: int) -> Any:
    """What callbacks ask a Trainer for, in a loop of one's own, which keeps it up to date.

    Args:
        callbacks: Those that take part.
        rank: This process's.
    """
    done = SimpleNamespace(current=SimpleNamespace(processed=0), total=SimpleNamespace(ready=0))
    return SimpleNamespace(
        callbacks=callbacks,
        state=TrainerState(),
        strategy=SimpleNamespace(broadcast=lambda value: value),
        precision_plugin=None,
        accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=done)),
        loggers=[],
        log_dir=None,
        default_root_dir=".",
        current_epoch=0,
        global_step=0,
        global_rank=rank,
        is_global_zero=rank == 0,
        is_last_batch=False,
        num_training_batches=1,
        sanity_checking=False,
    )
