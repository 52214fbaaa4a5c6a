"""What is read off a Lightning Trainer."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_noisy.errors import NoisyLabelError

_LIGHTNING_FALLBACK = 1000


def from_datamodule(trainer: Trainer, name: str) -> Any:
    """An attribute of the Trainer's data module, None without either."""
    return getattr(getattr(trainer, "datamodule", None), name, None)


def run_folder(trainer: Trainer) -> str | None:
    """Where a run's evidence goes, the same on all processes: its logger's folder, None without one. A collective."""
    folder = trainer.log_dir
    keep = bool(trainer.loggers) and not getattr(trainer, "fast_dev_run", False)
    return folder if keep else None


def run_seed(given: int | None) -> int:
    """A seed as given; None takes the run's (Lightning's ``seed_everything``), else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if given is None else given


def log_interval(trainer: Trainer) -> int:
    """Batches between two logging steps of a Trainer, at least 1: where values are read back anyway."""
    interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return max(1, interval)


def starts_afresh(trainer: Trainer) -> bool:
    """Whether a fit begins without a past: no batch has been trained and no checkpoint brought any."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0


def training_dataset(trainer: Trainer, owner: str) -> Any:
    """The data set that the trainer's loader reads.

    Raises:
        NoisyLabelError: There is not exactly one, or it cannot be counted.
    """
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__len__"):
        raise NoisyLabelError(
            f"{owner} keeps state for each training sample and needs one DataLoader over a map-style data set, "
            f"but the training loader is a {type(loader).__name__}."
        )
    return dataset


def checkpoint_is_due(trainer: Trainer) -> bool:
    """Whether a ModelCheckpoint may write after this batch, so that ranks have to share their rows before."""
    if trainer.world_size == 1:
        return False
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return any(
        c._train_time_interval is not None
        or (c._every_n_train_steps > 0 and trainer.global_step % c._every_n_train_steps == 0)
        for c in checkpoints
    )


def check_not_sharded(trainer: Trainer, what: str) -> None:
    """Refuse strategies under which no process has a whole weight and its whole gradient.

    Args:
        trainer: The trainer.
        what: What cannot be done then, for the message: "MaskRefresh cannot mask `head`".

    Raises:
        NoisyLabelError: FSDP, model parallel or DeepSpeed.
    """
    if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        raise NoisyLabelError(
            f"{what} under {type(trainer.strategy).__name__}, which shards its weights or gradients: use "
            "strategy='ddp'."
        )


def resolve_total_epochs(trainer: Trainer, owner: str) -> int:
    """The number of epochs the trainer will run.

    Raises:
        NoisyLabelError: It has no limit, or only the one that Lightning falls back to (1000 epochs).
    """
    epochs = trainer.max_epochs
    if epochs is None or epochs < 1 or epochs == _LIGHTNING_FALLBACK:
        came = "Lightning's fallback of 1000" if epochs == _LIGHTNING_FALLBACK else repr(epochs)
        raise NoisyLabelError(
            f"{owner} needs the number of epochs, but the Trainer's `max_epochs` is {came}: set "
            f"`Trainer(max_epochs=...)`, or pass `total_epochs` to {owner}."
        )
    return epochs
