"""What a training batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

_WANTED = (
    "wanted (images, target, index) or a dict with the entry `index`, an int64 tensor (B,): "
    "wrap the training set in `lightning_noisy.data.IndexedDataset`, or name the entry with `index_key`"
)


def batch_index(batch: Any, index_key: int | str | None = None) -> Tensor:
    """The dataset indices of a training batch.

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


def unpack_batch(batch: Any) -> tuple[Any, Tensor, Tensor]:
    """Take a training batch ``(images, target, index)`` apart.

    Returns:
        Images (B, C, H, W), a list of views or features (B, D); target int64 (B,); index int64 (B,).

    Raises:
        NoisyLabelError: It is something else.
    """
    index = batch_index(batch)
    if isinstance(batch, Mapping) or len(batch) != 3:
        raise NoisyLabelError(f"Expected a training batch (images, target, index), but got {_describe(batch)}.")
    return batch[0], batch[1], index


def _describe(value: Any) -> str:
    """A value's shape in words: what a message needs."""
    if isinstance(value, Tensor):
        return f"{value.dtype} tensor {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, Mapping):
        return "a dict with " + ", ".join(f"`{key}`" for key in value)
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(_describe(v) for v in value[:4])})"
    return f"a {type(value).__name__}"
