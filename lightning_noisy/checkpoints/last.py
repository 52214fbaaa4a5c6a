"""The last checkpoint of a run that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_noisy.checkpoints.check import RUN_STATE, read_checkpoint
from lightning_noisy.checkpoints.io import readable_path
from lightning_noisy.errors import NoisyLabelError


def last_checkpoint_of(run: Path, weights_only: bool = True) -> Path:
    """The checkpoint with most steps behind it, of equals the last by name (``last.ckpt``).

    A ``last.ckpt`` that is cut short gives way to the one before it, with a warning.

    Args:
        run: A file, which is the checkpoint itself, or the folder of one run, searched at any depth.
        weights_only: As for ``torch.load``.

    Raises:
        NoisyLabelError: There is none, those of several runs, or one that cannot be read.
    """
    if run.is_file():
        return run
    found = sorted({Path(readable_path(path, weights_only)) for path in run.rglob("*.ckpt") if path.is_file()})
    if not found:
        raise NoisyLabelError(f"Expected '{run}' to be a checkpoint, or the folder of a run that has one.")
    folders = sorted({path.parent for path in found})
    if len(folders) > 1:
        raise NoisyLabelError(
            f"'{run}' has checkpoints of {len(folders)} runs: name one, as '{run_folder_of(found[-1])}'."
        )
    return max(found, key=lambda path: (_steps(path, weights_only), path.name)) if len(found) > 1 else found[0]


def run_folder_of(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint: where it lies, or above ``checkpoints``."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def ends_an_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Whether all batches of its epoch were behind the run when it wrote a checkpoint."""
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return bool(batches["is_last_batch"]) and checkpoint["callbacks"][RUN_STATE].get("broken_batch") is None


def _steps(path: Path, weights_only: bool) -> int:
    checkpoint = read_checkpoint(path, weights_only, lazily=True)
    return int(checkpoint.get("global_step", 0)) if isinstance(checkpoint, Mapping) else 0
