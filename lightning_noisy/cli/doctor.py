"""``lightning-noisy doctor``: whether a machine, and a configuration on it, can train."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.cli.overview import versions
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver
from lightning_noisy.trainer_access import from_datamodule

_BATCHES = 10
_DESCRIPTION = f"""\
Say what this machine has. With `--config` and any other argument of `fit`: make everything, train {_BATCHES} batches,
write nothing, and say what shapes, memory and time to expect. The exit code is 0 when it would train, else 2."""


class Probe(Callback):
    """Watches the batches of a trial."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """How long each batch took, from one to the next."""
        self.shapes = ""
        """Of what the first batch holds."""
        self.batches = 0
        """In an epoch."""
        self.stores: dict[str, int] = {}
        """Bytes of the rows that a member keeps for the training samples."""
        self._last: float | None = None

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.shapes = self.shapes or _shape(batch)

    @override
    def on_train_batch_end(self, *args: Any) -> None:
        _finish_queue()
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        self.batches = len(loader) if hasattr(loader, "__len__") else 0
        self.stores = {
            section.owner: sum(store.nbytes for store in section.stores.values())
            for section in RunDriver.of(trainer).sections.values()
            if section.stores
        }


def doctor(arguments: Sequence[str], fit: Callable[[list[str]], Trainer]) -> list[str]:
    """Say what a machine has, and what a configuration needs.

    Args:
        arguments: Those of ``fit``; none looks at the machine alone.
        fit: Trains with arguments of ``fit``, and returns the Trainer.

    Returns:
        What may go wrong, a sentence each.

    Raises:
        NoisyLabelError: The configuration cannot train, and why.
    """
    given = _parser().parse_known_args(arguments)[1]
    _say("versions", versions())
    for name, value in machine().items():
        _say(name, value)
    if not given:
        return []
    probe = f"--trainer.callbacks+={Probe.__module__}.{Probe.__qualname__}"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        trainer = fit([*given, probe, f"--trainer.fast_dev_run={_BATCHES}", *quiet])
    found: list[Any] = [callback for callback in trainer.callbacks if isinstance(callback, Probe)]  # type: ignore[attr-defined]
    for name, value in _needs(trainer, found[0]).items():
        _say(name, value)
    problems = list(dict.fromkeys(str(one.message).split("\n")[0] for one in caught if _is_said_to_users(one)))
    for problem in problems:
        _say("note", problem)
    _say("result", "it trains")
    return problems


def machine() -> dict[str, str]:
    """Processors and accelerators: what -> how many, and which."""
    found = {"processors": f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"GPU {number}"] = f"{properties.name}, {size(properties.total_memory)}"
    if torch.backends.mps.is_available():
        found["GPU"] = "Apple (mps)"
    if len(found) == 1:
        found["GPU"] = "none that torch can use"
    return found


def size(count: float) -> str:
    """Bytes for people.

    Args:
        count: How many.
    """
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def _needs(trainer: Trainer, probe: Probe) -> Mapping[str, str]:
    """What a trial has shown."""
    module, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    parameters = sum(one.numel() for one in module.parameters())
    rate = from_datamodule(trainer, "realized_noise_rate")
    said = {
        "model": f"{type(module).__name__}, {parameters:,} parameters{_parts(module)}",
        "data": f"{type(data).__name__}, {probe.batches} batches an epoch",
        "batch": probe.shapes,
        "device": str(module.device),
        "noise": "not known" if rate is None else f"{rate:.1%} of the labels are wrong",
        "rows so far": "none"
        if not probe.stores
        else ", ".join(f"{name} {size(kept)}" for name, kept in probe.stores.items()),
    }
    if probe.seconds:
        step = statistics.median(probe.seconds)
        said["time"] = f"about {1000 * step:.0f} ms a batch, {step * probe.batches:.0f} s an epoch, without validation"
    return said


def _parts(module: LightningModule) -> str:
    network = getattr(module, "network", None)
    head = getattr(network, "head", None)
    return f", head {type(head).__name__}" if isinstance(head, nn.Module) else ""


def _shape(batch: Any) -> str:
    """Tensors of a batch, e.g. ``float32 64 x 1 x 8 x 8, int64 64``."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {' x '.join(map(str, batch.shape)) or 'scalar'}"
    if isinstance(batch, Mapping):
        return ", ".join(f"{name}: {_shape(value)}" for name, value in batch.items())
    if isinstance(batch, (list, tuple)):
        return ", ".join(map(_shape, batch))
    return type(batch).__name__


def _is_said_to_users(one: warnings.WarningMessage) -> bool:
    """Whether a warning is about the run; those of deprecated functions are for developers."""
    return not issubclass(one.category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning))


def _finish_queue() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _say(name: str, value: str) -> None:
    print(f"{name:<16} {value}", flush=True)


def _parser() -> CommandParser:
    return CommandParser("doctor", _DESCRIPTION)
