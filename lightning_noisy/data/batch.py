"""What a training batch holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

IndexKey = int | str | Callable[[Any], Any] | None
"""Where a training batch holds its index: a position in a tuple, an entry of a dict, an attribute of another object, or
a function of the batch. None takes what the samples of an ``IndexedDataset`` carry, else what the loader hands out."""

_WANTED = (
    "wanted (images, target, index) or a dict with the entry `index`, an int64 tensor (B,): "
    "wrap the training set in `lightning_noisy.data.IndexedDataset`, or say with `index_key` where it is"
)


@dataclass(frozen=True)
class TrainingBatch:
    """A batch of one training loader."""

    images: Any
    """Images (B, C, H, W), a list of views, each such a tensor, or features (B, D)."""

    target: Tensor
    """Given labels, int64 (B,)."""

    index: Tensor
    """Positions in the training set, int64 (B,)."""


class Batch:
    """A training batch as it came, and its place in the run. Its index is read once, whoever asks.

    Args:
        content: What the loaders gave.
        epoch: Number of the epoch, from 0.
        batch_idx: Number of the batch in the epoch, from 0.
        indices: Gives the index (B,), int64, of each training loader's part, by the loader's name; that of the only one
            is empty.
    """

    def __init__(self, content: Any, epoch: int, batch_idx: int, indices: Mapping[str, Callable[[], Tensor]]) -> None:
        self.content = content
        self.epoch = epoch
        self.batch_idx = batch_idx
        self.called: Tensor | None = None
        """The index (B,) of the rows that the step is about to give to a criterion, if it says so."""
        self._from_loaders = indices
        self._indices: dict[IndexKey, dict[str, Tensor]] = {}

    def indices(self, key: IndexKey = None) -> dict[str, Tensor]:
        """The index of each training loader's part.

        Args:
            key: Where the batch holds it, see :data:`IndexKey`; or the loader that is meant.

        Raises:
            NoisyLabelError: Nobody knows it.
        """
        if key not in self._indices:
            self._indices[key] = self._read(key)
        return self._indices[key]

    def index(self, key: IndexKey = None) -> Tensor:
        """The index (B,) of the only part.

        Raises:
            NoisyLabelError: The batch comes from several loaders, and ``key`` names none.
        """
        parts = self.indices(key)
        if len(parts) != 1:
            raise NoisyLabelError(
                f"The training batch has parts of {len(parts)} loaders ({', '.join(parts)}): name one with `index_key`."
            )
        return next(iter(parts.values()))

    def _read(self, key: IndexKey) -> dict[str, Tensor]:
        if key is None:
            return {name: index() for name, index in self._from_loaders.items()}
        loader = self._from_loaders.get(str(key)) if key != "" else None
        return {"": batch_index(self.content, key) if loader is None else loader()}


def batch_index(batch: Any, index_key: IndexKey = None) -> Tensor:
    """The dataset indices that a training batch of one loader carries.

    Args:
        batch: A tuple or list of at least three entries whose last one is the index, or a dict with the entry
            ``index``.
        index_key: Somewhere else, see :data:`IndexKey`.

    Returns:
        int64 (B,).

    Raises:
        NoisyLabelError: There is no such entry, or it is no vector of integers.
    """
    index = index_key(batch) if callable(index_key) else _entry(batch, index_key)
    if isinstance(index, (np.ndarray, list)):
        index = _as_tensor(index)
    if not isinstance(index, Tensor) or index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        came = _describe(batch) if index is None else f"{_describe(index)} as the index"
        at = "" if index_key is None or callable(index_key) else f" at {index_key!r}"
        raise NoisyLabelError(f"The training batch has no index{at}: got {came}; {_WANTED}.")
    return index.long()


def _entry(batch: Any, key: int | str | None) -> Any:
    """An entry of a tuple by its position, of a dict by its key, of another object by its name; None without it."""
    if isinstance(batch, Mapping):
        return batch.get("index" if key is None else key)
    if isinstance(batch, (tuple, list)) and key not in getattr(batch, "_fields", ()):
        shortest, position = (3, -1) if key is None else (1, key)
        inside = isinstance(position, int) and len(batch) >= shortest and -len(batch) <= position < len(batch)
        return batch[position] if inside else None  # type: ignore[index]
    return getattr(batch, key, None) if isinstance(key, str) else None


def _as_tensor(values: Any) -> Any:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return values


def unpack_batch(batch: Any) -> TrainingBatch | dict[str, TrainingBatch]:
    """Take a training batch ``(images, target, index)`` apart; of several loaders, each one's by its name.

    Raises:
        NoisyLabelError: It is something else.
    """
    parts = _parts(batch)
    return {name: _unpack(part) for name, part in parts.items()} if parts else _unpack(batch)


def _unpack(batch: Any) -> TrainingBatch:
    index = batch_index(batch)
    if isinstance(batch, Mapping) or len(batch) != 3:
        raise NoisyLabelError(f"Expected a training batch (images, target, index), but got {_describe(batch)}.")
    return TrainingBatch(batch[0], batch[1], index)


def _parts(batch: Any) -> dict[str, Any]:
    """The batches that several loaders gave, by their names or positions; empty for one loader's batch."""
    if isinstance(batch, Mapping):
        named = list(batch.items())
    elif isinstance(batch, (tuple, list)):
        named = list(enumerate(batch))
    else:
        return {}
    parts = {str(name): part for name, part in named if part is not None}  # None: a loader that is at its end
    return parts if parts and all(isinstance(part, (Mapping, tuple, list)) for part in parts.values()) else {}


def _describe(value: Any) -> str:
    """A value's shape in words: what a message needs."""
    if isinstance(value, Tensor):
        return f"{value.dtype} tensor {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, Mapping):
        return "a dict with " + ", ".join(f"`{key}`" for key in value)
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(_describe(v) for v in value[:4])})"
    return f"a {type(value).__name__}"
