"""Runs that can be stopped and go on: each a process of ``lightning-noisy fit`` in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.cells import Training
from benchmarks.record import ROOT, describe_machine
from lightning_noisy.checkpoints.check import RUN_STATE, read_checkpoint
from lightning_noisy.checkpoints.last import last_checkpoint_of
from lightning_noisy.cli.trainings import Job
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.files import written_aside
from lightning_noisy.recipes import Settings, on_top, recipe_settings

GRACE = 60.0
"""Seconds that a run has to write a checkpoint when it is stopped."""
POLL = 0.2
_ASKED, _CONFIG, _PARTS, _STOPPED = "asked.json", "run.yaml", "parts.json", "stopped"
_QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


@dataclass(frozen=True)
class Run:
    """A training with a seed."""

    training: Training
    seed: int
    folder: Path
    config: Settings
    """What goes on top of the recipe."""
    arguments: tuple[str, ...]
    """Of ``fit``, on top of that."""

    @property
    def name(self) -> str:
        """In the record and in what is said."""
        return self.training.name(self.seed)

    @property
    def job(self) -> Job:
        """How it is started."""
        return Job(str(self.folder / _CONFIG), self.seed, self.folder, (*self.arguments, *_QUIET))

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What its processes noted of themselves, one for each time that it was started."""
        path = self.folder / _PARTS
        parts: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return parts

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "log.txt"

    @property
    def said(self) -> str:
        """The last line of it."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("lightning-noisy: error: ") if lines else "nothing was said"

    def prepare(self) -> None:
        """Write what it is to do. What a run of other settings has left in its folder is removed."""
        settings = on_top(recipe_settings(self.training.recipe), self.config)
        asked = {"arguments": self.arguments, "recipe": self.training.recipe, "settings": settings}
        text = json.dumps(asked, indent=2) + "\n"
        path = self.folder / _ASKED
        if not path.exists() or path.read_text() != text:
            if path.exists():
                print(f"begun anew, since its settings are others now: {self.name}", flush=True)
            for left in self.folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        for name, content in ((_CONFIG, yaml.safe_dump(self.config)), (_ASKED, text)):
            with written_aside(self.folder / name) as file:
                file.write(content.encode())

    def checkpoint(self) -> Path | None:
        """Where it goes on: the last checkpoint that was not written by a batch that failed."""
        stopped = self.folder / "checkpoints" / f"{_STOPPED}.ckpt"
        if stopped.exists() and _of_no_use(stopped):
            stopped.unlink()
        written = any(self.folder.rglob("*.ckpt"))
        return last_checkpoint_of(self.folder) if written else None

    def command(self) -> list[str]:
        """The process, which goes on where it was stopped."""
        place = self.checkpoint()
        when_stopped = {"dirpath": self.folder / "checkpoints", "filename": _STOPPED}
        return [
            *(sys.executable, "-m", "lightning_noisy", *self.job.fit),
            "--trainer.callbacks+=lightning.pytorch.callbacks.OnExceptionCheckpoint",
            *(f"--trainer.callbacks.{name}={value}" for name, value in when_stopped.items()),
            *([] if place is None else [f"--ckpt_path={place}"]),
        ]


class Part:
    """A process of a run.

    Args:
        run: The run, which this process holds alone (:func:`held`).
        lock: Of its folder; it goes over to the process.
        at_once: How many runs share the machine.
    """

    def __init__(self, run: Run, lock: int, at_once: int) -> None:
        self.run, self._began, self.asked_to_stop = run, time.monotonic(), False
        self._notes = {**describe_machine(), "device": device(run.arguments), "at_once": at_once}
        run.prepare()
        self._parts = [*run.parts, {**self._notes, "seconds": None}]
        self._note()  # at once: nobody else will, should this process die
        threads = str(max(1, (os.cpu_count() or 1) // at_once))
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with run.log.open("ab") as log:
            self._process = subprocess.Popen(
                run.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": path},
                pass_fds=(lock,),
                start_new_session=True,  # what interrupts us is no business of its batches
            )

    def over(self) -> bool:
        """Whether it has ended; then it is noted how long it took."""
        if self._process.poll() is None:
            return False
        self._parts[-1]["seconds"] = round(time.monotonic() - self._began, 1)
        self._note()
        return True

    @property
    def said(self) -> str:
        """Why it has ended."""
        code = self._process.returncode
        return f"ended by {signal.Signals(-code).name}." if code < 0 else self.run.said

    def _note(self) -> None:
        with written_aside(self.run.folder / _PARTS) as file:
            file.write((json.dumps(self._parts, indent=2) + "\n").encode())

    def stop(self) -> None:
        """Let it write a checkpoint and end."""
        self.asked_to_stop = True
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Until it has ended; after these seconds it has to."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def train(runs: Sequence[Run], jobs: int, seconds: float | None, ended: Callable[[Part], None]) -> list[Run]:
    """Do runs, the first first, so many at a time, until all are done or time is over.

    Args:
        runs: What to do.
        jobs: At a time.
        seconds: After which those that run are stopped; None has no end.
        ended: Is told of each process when it has ended.

    Returns:
        The runs that another process is at.
    """
    waiting, taken = list(runs), list[Run]()
    running: list[tuple[Part, int]] = []
    until = float("inf") if seconds is None else time.monotonic() + seconds
    try:
        while (waiting or running) and time.monotonic() < until:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                lock = held(run.folder)
                if lock is None:
                    taken.append(run)
                else:
                    running.append((Part(run, lock, jobs), lock))
            time.sleep(POLL if running else 0)
            running = list(_still_running(running, ended))
    finally:
        _stop(running, ended)
    return taken


def held(folder: Path) -> int | None:
    """An open folder that no other process gets as long as it is open, here or in a child; None where one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """What is done inside, no other process does in this folder at the same time."""
    while (lock := held(folder)) is None:
        time.sleep(POLL)
    try:
        yield
    finally:
        os.close(lock)


def device(arguments: Sequence[str]) -> str:
    """What trains: the GPU, or the processor where there is none or ``fit`` is told so."""
    on_cpu = "cpu" in arguments or any(word == "--trainer.accelerator=cpu" for word in arguments)
    if torch.cuda.is_available() and not on_cpu:
        return str(torch.cuda.get_device_name())
    return str(describe_machine()["processor"])


def _of_no_use(stopped: Path) -> bool:
    """Whether a checkpoint cannot be read, or was written by a batch that failed."""
    try:
        return bool(read_checkpoint(stopped, True, lazily=True)["callbacks"][RUN_STATE]["broken_batch"])
    except NoisyLabelError:
        return True


def _still_running(running: list[tuple[Part, int]], ended: Callable[[Part], None]) -> Iterator[tuple[Part, int]]:
    for part, lock in running:
        if part.over():
            os.close(lock)
            ended(part)
        else:
            yield part, lock


def _stop(running: list[tuple[Part, int]], ended: Callable[[Part], None]) -> None:
    """Stop what runs, all at once."""
    for part, _ in running:
        part.stop()
    until = time.monotonic() + GRACE
    for part, _ in running:
        part.wait(until - time.monotonic())
    list(_still_running(running, ended))
