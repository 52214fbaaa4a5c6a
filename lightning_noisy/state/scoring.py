"""A pass over the training set that looks at every sample and learns nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from lightning_noisy.data.batch import TrainingBatch, unpack_batch
from lightning_noisy.data.indexed import IndexedDataset, carries_index
from lightning_noisy.data.samplers import EvaluationSampler
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.section import Section
from lightning_noisy.trainer_access import from_datamodule, training_loaders

Measure = Callable[[TrainingBatch], dict[str, Tensor]]
"""From a batch to named rows, each (B, ...)."""

_SECONDS_BEFORE_THE_BAR = 1.0


def score_training_set(
    owner: str,
    module: LightningModule,
    section: Section,
    measure: Measure,
    training: bool = False,
    part: Tensor | None = None,
    dataset: Dataset[Any] | None = None,
) -> None:
    """Write what is measured of training samples into the stores of a section, equal on all processes.

    Args:
        owner: Who looks, for the progress bar and messages.
        module: The module, in a Trainer.
        section: What keeps the rows.
        measure: Gives the rows of a batch; called without gradients.
        training: Whether the module is in train mode meanwhile. Its buffers are afterwards what they were.
        part: The samples, int64 (M,); None for all. Others keep the rows that they have.
        dataset: What is looked at, see :func:`scoring_loader`.

    Raises:
        NoisyLabelError: What is looked at are not all of the samples that have a row.
    """
    trainer = module.trainer
    loader = scoring_loader(trainer, dataset)
    check_whole(owner, loader, section.num_samples)
    if part is not None:
        loader = _of_part(loader, part[trainer.global_rank :: trainer.world_size])
    names: set[str] = set()
    with _undisturbed(module, training), trainer.precision_plugin.forward_context():
        for batch in _watched(trainer, loader, owner):
            converted = trainer.precision_plugin.convert_input(batch)
            seen = unpack_batch(trainer.strategy.batch_to_device(converted))
            assert isinstance(seen, TrainingBatch)
            for name, rows in measure(seen).items():
                home = seen.index.device
                section.store(name, tuple(rows.shape[1:]), dtype=_stored(rows), device=home).update(seen.index, rows)
                names.add(name)
    for name in sorted(names):
        section.stores[name].synchronize()


def scoring_loader(trainer: Trainer, dataset: Dataset[Any] | None = None) -> DataLoader[Any]:
    """The training set in order, each sample in one process: ``(images, target, index)``.

    Args:
        trainer: The Trainer.
        dataset: The training set as it is looked at; None takes the data module's ``scoring_loader``, else the set of
            the training loader as it is.
    """
    declared = from_datamodule(trainer, "scoring_loader") if dataset is None else None
    if declared is not None:
        loader: DataLoader[Any] = declared()
        return loader
    training = training_loaders(trainer)[0]
    seen = training.dataset if dataset is None else _indexed(dataset)
    sampler = EvaluationSampler(seen, trainer.world_size, trainer.global_rank)
    collate = training.collate_fn if dataset is None else None
    size = training.batch_size or 1
    return DataLoader(seen, size, sampler=sampler, num_workers=training.num_workers, collate_fn=collate)


def _indexed(dataset: Dataset[Any]) -> Dataset[Any]:
    return dataset if carries_index(dataset) else IndexedDataset(dataset)


def _of_part(loader: DataLoader[Any], part: Tensor) -> DataLoader[Any]:
    """The same over a part of its samples."""
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        sampler=part.tolist(),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )


def check_whole(owner: str, loader: DataLoader[Any], num_samples: int | None) -> None:
    """Refuse a pass that would leave out samples that have a row.

    Args:
        owner: Who looks.
        loader: What is passed over.
        num_samples: Samples that have a row.

    Raises:
        NoisyLabelError: The loader's set has another number.
    """
    count = len(loader.dataset)  # type: ignore[arg-type]
    if count != num_samples:
        raise NoisyLabelError(
            f"{owner} looks at each of {num_samples} training samples, but the loader reads {count} of them: "
            "number the part alone, `IndexedDataset(Subset(...))`."
        )


def _stored(rows: Tensor) -> torch.dtype:
    half = rows.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half else rows.dtype


def _watched(trainer: Trainer, loader: DataLoader[Any], owner: str) -> Iterator[Any]:
    shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
    yield from tqdm(
        loader, f"{owner} looks at the training set", leave=False, disable=not shown, delay=_SECONDS_BEFORE_THE_BAR
    )


@contextmanager
def _undisturbed(module: nn.Module, training: bool) -> Iterator[None]:
    """Modes, buffers and random streams are afterwards what they were."""
    modes = {part: part.training for part in module.modules()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()} if training else {}
    device = next(module.parameters()).device
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            module.train(training)
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for name, buffer in module.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
