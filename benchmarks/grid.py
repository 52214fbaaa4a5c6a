"""A grid of fits that goes on where it stopped."""

from __future__ import annotations

import logging
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from tqdm import tqdm

from benchmarks.record import describe_machine, read_record, write_record
from lightning_noisy.callbacks import RunSummary
from lightning_noisy.data import NoisyDataModule
from lightning_noisy.modules import StrategyModule

Run = dict[str, Any]


@dataclass(frozen=True)
class Fitted:
    """What a fit left."""

    module: StrategyModule
    data: NoisyDataModule
    evaluated: list[dict[str, float]]
    """Metrics on the clean test set by epoch."""

    @property
    def accuracy(self) -> list[float]:
        """Clean test accuracy by epoch."""
        return [seen["test/acc"] for seen in self.evaluated]

    def record(self) -> Run:
        """What is kept of it."""
        return {
            "accuracy": [round(seen, 5) for seen in self.accuracy],
            "agreement_with_labels": [round(seen["train/acc"], 5) for seen in self.module.history.values()],
            "realized_noise_rate": self.data.realized_noise_rate,
        }


def fit(
    module: StrategyModule,
    data: NoisyDataModule,
    epochs: int,
    clip: float,
    callbacks: Sequence[Callback] = (),
    accelerator: str = "cpu",
    devices: int = 1,
    **options: Any,
) -> Fitted:
    """Train without a word; ``options`` are more of the Trainer's."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    summary = RunSummary(also=tuple(f"test/{member}/acc" for member in module.members))
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        max_epochs=epochs,
        gradient_clip_val=clip,
        callbacks=[summary, *callbacks],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data)
    return Fitted(module, data, list(summary.history.values()))


def fill(
    results: Path,
    settings: Any,
    runs: dict[str, Run],
    one_run: Callable[..., Run],
    jobs: int,
    read: Callable[[Path], dict[str, Any]] = read_record,
    write: Callable[[Path, dict[str, Any]], None] = write_record,
) -> dict[str, Any]:
    """Do the runs that a record lacks, and write it after each.

    Args:
        results: The record.
        settings: A dataclass: what all runs of the record share.
        runs: Arguments of ``one_run`` by the names of the runs.
        one_run: Does a run; a function that processes can be sent.
        jobs: Number of processes, of one thread each.
        read: Reads a record; an empty one where there is none yet.
        write: Writes it.

    Raises:
        ValueError: The record is one of other settings.
    """
    record = {"settings": asdict(settings), "machine": describe_machine(), "runs": {}, **read(results)}
    if record["settings"] != asdict(settings):
        raise ValueError(f"{results} is a record of {record['settings']}, not of {settings}: give other `--results`.")
    missing = {name: arguments for name, arguments in runs.items() if name not in record["runs"]}
    with tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run") as progress:
        for name, seen in _finished(one_run, missing, jobs):
            record["runs"][name] = seen
            write(results, record)
            progress.update()
    return record


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of shares, in per cent."""
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _finished(function: Callable[..., Run], runs: dict[str, Run], jobs: int) -> Iterator[tuple[str, Run]]:
    """Names and results of runs as they come in, from this process or from several."""
    if jobs == 1:
        yield from ((name, function(**arguments)) for name, arguments in runs.items())
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        started = {pool.submit(function, **arguments): name for name, arguments in runs.items()}
        try:
            yield from ((started[done], done.result()) for done in as_completed(started))
        finally:
            pool.shutdown(cancel_futures=True)
