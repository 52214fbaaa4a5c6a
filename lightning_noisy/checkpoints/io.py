"""Checkpoint files that are whole or not there, and the one before kept beside."""

from __future__ import annotations

import os
import pickle
import re
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.files import written_aside

BROKEN_FILE = (EOFError, LookupError, OSError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What :func:`load_whole` raises where a file is no whole checkpoint."""

_LAST = re.compile(r"last(-v\d+)?\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, brings it to the disk and renames it.

    A process that dies, or a disk that is full, leaves the file that was there. Lightning's own writing goes through
    the temporary folder, from where a file is copied when that lies on another file system, and a copy can end half
    way.

    A ``last.ckpt`` that is overwritten is kept as ``last.previous.ckpt``; where the former cannot be read, the latter
    is loaded, with a warning. Paths of other file systems (``s3://...``) are written as Lightning does.

    The command line uses it, unless a ``CheckpointIO`` is given among ``trainer.plugins`` or to the strategy.

    Example::

        Trainer(plugins=[AtomicCheckpointIO()])
    """

    def __init__(self) -> None:
        other = sys.modules.get("lightning_fabric.plugins")  # of `pytorch_lightning`, which asks for its own base
        if other is not None:
            other.CheckpointIO.register(type(self))

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = local_path(path)
        if target is None or storage_options is not None:  # which Lightning refuses
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        for left in target.parent.glob(f".{target.name}.*.tmp"):  # by a process that died
            left.unlink(missing_ok=True)
        with written_aside(target) as file:
            torch.save(checkpoint, file)
            if _LAST.fullmatch(target.name) and target.is_file() and zipfile.is_zipfile(target):
                _link(target, previous_path(target))

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        found = readable_path(path, weights_only)
        with get_filesystem(found).open(os.fspath(found), "rb") as file:
            loaded: dict[str, Any] = torch.load(file, map_location, weights_only=weights_only is not False)
        return loaded

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        super().remove_checkpoint(path)
        target = local_path(path)
        if target is not None and _LAST.fullmatch(target.name):
            previous_path(target).unlink(missing_ok=True)


def local_path(path: str | Path) -> Path | None:
    """A path of this machine, None for a URL."""
    text = os.fspath(path)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return None if "://" in text else Path(text)


def previous_path(target: Path) -> Path:
    """Where the ``last.ckpt`` before is kept."""
    return target.with_name(f"{target.stem}.previous{target.suffix}")


def readable_path(path: str | Path, weights_only: bool | None = None) -> str | Path:
    """The path, or that of the checkpoint before where it is a ``last.ckpt`` that cannot be read; this is said.

    Args:
        path: The file that is asked for.
        weights_only: False trusts the file, which may then run code; all else loads values alone.
    """
    target = local_path(path)
    if target is None or not _LAST.fullmatch(target.name) or not previous_path(target).is_file():
        return path
    try:
        load_whole(target, weights_only)
    except BROKEN_FILE as error:
        previous = previous_path(target)
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({type(error).__name__})"
        rank_zero_warn(f"{target} {why}: {previous}, the checkpoint before it, is loaded in its place.")
        return previous
    return path


def load_whole(path: Path, weights_only: bool | None = None, lazily: bool = False) -> Any:
    """What a file of this machine holds, on the CPU.

    Args:
        path: The file.
        weights_only: False trusts the file, which may then run code; all else loads values alone.
        lazily: Whether tensors are read when they are used.

    Raises:
        OSError: It is not there, or cut short, or no file of ``torch.save``; also others of :data:`BROKEN_FILE`.
    """
    if path.exists() and not zipfile.is_zipfile(path):
        raise OSError(f"{path} is no whole file of torch.save")
    return torch.load(path, "cpu", weights_only=weights_only is not False, mmap=lazily)


def _link(target: Path, other: Path) -> None:
    """Give a file a second name, at once; on a file system without hard links it has only that one for a moment."""
    aside = other.with_name(f".{other.name}.{uuid.uuid4().hex}.tmp")
    try:
        os.link(target, aside)
        aside.replace(other)
    except OSError:
        target.replace(other)
    finally:
        aside.unlink(missing_ok=True)
