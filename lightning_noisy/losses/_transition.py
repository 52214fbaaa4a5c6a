"""Matrices of label noise as arguments of losses."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError, check_argument

_UNREADABLE = (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile)
_WANTED = "a square matrix of numbers >= 0, at least (2, 2), with rows that sum to 1"


def read_transition(source: Tensor | list[list[float]] | str) -> Tensor:
    """A matrix of label noise.

    Args:
        source: A matrix (K, K), row = clean class, column = noisy class, or the path of a .npy file, or of a .npz file
            that holds it alone.

    Returns:
        float64 matrix (K, K) on the CPU.

    Raises:
        NoisyLabelError: The file cannot be read, or it is no matrix whose rows are distributions.
    """
    shown = source if isinstance(source, str) else "another one"
    try:
        matrix = torch.as_tensor(_load(source) if isinstance(source, str) else source, dtype=torch.float64)
    except _UNREADABLE as error:
        raise NoisyLabelError(f"Expected argument `transition` to be {_WANTED}, but got {shown}: {error}.") from error
    matrix = matrix.detach().cpu()
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] >= 2
    valid = square and bool((matrix >= 0).all()) and bool(((matrix.sum(dim=1) - 1).abs() < 1e-4).all())
    check_argument(valid, "transition", _WANTED, f"{shown}, shape {tuple(matrix.shape)}")
    return matrix


def _load(path: str) -> np.ndarray[Any, np.dtype[Any]]:
    loaded = np.load(Path(path).expanduser(), allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asarray(loaded)
    with loaded:
        if len(loaded.files) != 1:
            raise TypeError(f"its arrays are {loaded.files}, wanted a single one")
        return np.asarray(loaded[loaded.files[0]])
