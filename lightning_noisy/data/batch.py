"""What a training batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

IndexKey = int | str | None
"""Where a batch holds its index; None is the last entry of a tuple, or ``index`` of a dict."""

_WANTED = (
    "wanted (images, target, index) or a dict with the entry `index`, an int64 tensor (B,): "
    "wrap the training set in `lightning_noisy.data.IndexedDataset`, or name the entry with `index_key`"
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
    """

    def __init__(self, content: Any, epoch: int, batch_idx: int) -> None:
        self.content = content
        self.epoch = epoch
        self.batch_idx = batch_idx
        self.called: Tensor | None = None
        """The index (B,) of the rows that the step is about to give to a criterion, if it says so."""
        self._indices: dict[IndexKey, dict[str, Tensor]] = {}

    def indices(self, key: IndexKey = None) -> dict[str, Tensor]:
        """The index of each training loader's part, see :func:`batch_indices`."""
        if key not in self._indices:
            self._indices[key] = batch_indices(self.content, key)
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


def batch_indices(batch: Any, index_key: IndexKey = None) -> dict[str, Tensor]:
    """The dataset indices of a training batch, for each loader that it comes from.

    Args:
        batch: A tuple or list of at least three entries whose last one is the index, a dict with the entry ``index``,
            or, from several loaders, a list or dict of such batches.
        index_key: Another position or entry; of a batch from several loaders, the loader's.

    Returns:
        Name of the loader (that of the only one is empty) -> int64 (B,).

    Raises:
        NoisyLabelError: There is no such entry, or it is no vector of integers.
    """
    parts = _parts(batch)
    if index_key is None and parts:
        return {name: batch_index(part) for name, part in parts.items()}
    if parts and str(index_key) in parts:
        return {"": batch_index(parts[str(index_key)])}
    return {"": batch_index(batch, index_key)}


def batch_index(batch: Any, index_key: IndexKey = None) -> Tensor:
    """The dataset indices of a training batch of one loader.

    Args:
        batch: A tuple or list of at least three entries whose last one is the index, or a dict with the entry
            ``index``.
        index_key: Another position or entry.

    Returns:
        int64 (B,).

    Raises:
        NoisyLabelError: There is no such entry, or it is no vector of integers.
    """
    key: Any = index_key
    if index_key is None:
        key = "index" if isinstance(batch, Mapping) else -1
    if isinstance(batch, Mapping):
        found = key in batch
    elif isinstance(batch, (tuple, list)):
        shortest = 3 if index_key is None else 1
        found = isinstance(key, int) and len(batch) >= shortest and -len(batch) <= key < len(batch)
    else:
        found = False
    index = batch[key] if found else None
    if not isinstance(index, Tensor) or index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        came = _describe(batch) if index is None else f"{_describe(index)} as the index"
        raise NoisyLabelError(f"The training batch has no index: got {came}; {_WANTED}.")
    return index.long()


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
