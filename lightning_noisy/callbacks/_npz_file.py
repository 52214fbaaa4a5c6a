"""Arrays that a run leaves in a .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.files import written_aside
from lightning_noisy.trainer import run_folder


def check_npz_path(path: str) -> None:
    """Refuse the name of another file.

    Raises:
        NoisyLabelError: ``path`` does not end in .npz.
    """
    check_argument(Path(path).suffix == ".npz", "path", "the name of a .npz file", path)


def write_npz(trainer: Trainer, path: str, what: str, **arrays: Tensor) -> None:
    """Write arrays aside, then rename, and say where they are.

    Args:
        trainer: Its run's folder (without a logger, ``default_root_dir``) is what a relative ``path`` is relative to.
        path: Name of the file.
        what: What is written, for the message.
        **arrays: CPU tensors by the names they get.
    """
    target = Path(run_folder(trainer) or trainer.default_root_dir) / path
    values: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
    with written_aside(target) as file:
        np.savez(file, **values)
    rank_zero_info(f"{what}: {target}")
