"""Trainings that ``lightning-noisy compare`` starts: each in a process and a folder of its own, none twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tqdm import tqdm

from lightning_noisy.cli.parser import config_hashes
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.files import written_aside
from lightning_noisy.recipes import TENSORBOARD, recipe_settings
from lightning_noisy.reports.comparison import SUMMARY

_SUMMARY_CALLBACK = "lightning_noisy.callbacks.RunSummary"
_COMMAND, _LOG = "command.json", "log.txt"


@dataclass(frozen=True)
class Job:
    """One training."""

    config: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether its summary is there."""
        return (self.folder / SUMMARY).is_file()

    @property
    def fit(self) -> list[str]:
        """The arguments of ``fit``."""
        logger = {"save_dir": self.folder.parent, "name": self.folder.name, "version": ""}
        return [
            "fit",
            f"--config={self.config}",
            *self.arguments,
            f"--seed_everything={self.seed}",
            *([] if self.has_summary else [f"--trainer.callbacks+={_SUMMARY_CALLBACK}"]),
            f"--trainer.logger={TENSORBOARD}",
            *(f"--trainer.logger.{name}={value}" for name, value in logger.items()),
        ]

    @property
    def has_summary(self) -> bool:
        """Whether the configuration, or an argument, writes one by itself."""
        callbacks = recipe_settings(self.config).get("trainer", {}).get("callbacks") or []
        return any(word.endswith("RunSummary") for word in (*map(_class_of, callbacks), *self.arguments))

    @property
    def asked(self) -> dict[str, object]:
        """What a folder's run was asked for."""
        return {"arguments": list(self.arguments), "seed": self.seed, "configs": config_hashes(self.fit)}


def train(jobs: Sequence[Job], at_once: int) -> None:
    """Run those that are not done, each in a process of its own."""
    for job in jobs:
        _check_same(job)
    missing = [job for job in jobs if not job.done]
    if not missing:
        return
    bar, failed = tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="run"), Event()
    trainings: list[subprocess.Popen[bytes]] = []
    with bar, _terminated_like_interrupted(), ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(_fit, job, at_once, failed, trainings) for job in missing]
        try:
            for future in as_completed(running):
                future.result()
                bar.update()
        except SystemExit:
            failed.set()
            for training in trainings:
                training.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """A SIGTERM, which ends this process alone, is an exception inside, so that no training goes on without it."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_same(job: Job) -> None:
    """Refuse a folder that holds something else."""
    path = job.folder / _COMMAND
    if not path.exists():
        if job.folder.exists():
            raise NoisyLabelError(f"'{job.folder}' was not made by this command: give another `--output`.")
        return
    if json.loads(path.read_text()) != json.loads(json.dumps(job.asked)):
        raise NoisyLabelError(
            f"'{job.folder}' has a run of another configuration or other arguments: give another `--output`."
        )


def _fit(job: Job, at_once: int, failed: Event, trainings: list[subprocess.Popen[bytes]]) -> None:
    """Train in a new process, unless another has failed; what an interrupted one has left is removed before."""
    if failed.is_set():
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    with written_aside(job.folder / _COMMAND) as file:
        file.write((json.dumps(job.asked, indent=2) + "\n").encode())
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    with (job.folder / _LOG).open("wb") as log:
        training = subprocess.Popen(
            [sys.executable, "-m", "lightning_noisy", *job.fit],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": threads, **os.environ},
        )
        trainings.append(training)
        if failed.is_set():
            training.terminate()
        code = training.wait()
    if code != 0 or not job.done:
        said = (job.folder / _LOG).read_text(errors="replace").strip().splitlines()
        nothing = f"no {SUMMARY}: without a validation or test set there is nothing to compare."
        why = said[-1].removeprefix("lightning-noisy: error: ") if said and code != 0 else nothing
        failed.set()
        raise NoisyLabelError(f"'{job.config}' with seed {job.seed} failed: {why} See '{job.folder / _LOG}'.")


def _class_of(callback: object) -> str:
    return str(callback.get("class_path", "")) if isinstance(callback, dict) else str(callback)
