"""Data sets whose samples carry their position."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from lightning_noisy.data.epoch_index import EpochIndex
from lightning_noisy.data.sample_draws import drawn_sample
from lightning_noisy.errors import NoisyLabelError


class IndexedDataset(Dataset[Any]):
    """Adds the index to the samples of any map-style data set.

    ``(x, y)`` becomes ``(x, y, index)``, a plain tuple also for named ones; ``{"x": x, "y": y}`` gets the entry
    ``index``. Of a split, wrap the subset, so that indices run from 0 to N - 1. Where several loaders read parts of one
    set, wrap the whole once and give each a ``Subset`` of it: indices, and state, are then those of the whole.

    Under an :class:`~lightning_noisy.data.EpochSampler` what the set draws for a sample, such as random crops, is a
    function of (seed, epoch, index): a resume repeats it, also with workers. It may draw in ``__getitem__`` from
    torch's stream on the CPU, NumPy's, and that of ``random``.

    Args:
        dataset: Data set of tuples, lists or dicts, with a length.

    Raises:
        NoisyLabelError: It has no length, is empty, or (at access) its samples are neither tuples nor dicts, or dicts
            with an entry ``index`` of their own.

    Example::

        loader = DataLoader(IndexedDataset(train_set), batch_size=128, shuffle=True)
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        counted = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if not counted or isinstance(dataset, IterableDataset):
            raise NoisyLabelError(
                f"Expected argument `dataset` to be a map-style data set with a length, but got a "
                f"{type(dataset).__name__}: per-sample state needs samples that can be counted."
            )
        if len(cast(Sized, dataset)) == 0:
            raise NoisyLabelError("Expected argument `dataset` to hold at least one sample, but it is empty.")
        self.dataset = dataset

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        sample = drawn_sample(self.dataset, index) if self._may_draw(index) else self.dataset[index]
        if isinstance(sample, dict):
            if "index" in sample:
                raise NoisyLabelError(
                    f"Sample {int(index)} has an entry `index` of its own, which IndexedDataset would hide: leave "
                    "IndexedDataset away, callbacks take the index from the loader."
                )
            return {**sample, "index": int(index)}
        if isinstance(sample, (tuple, list)):
            return (*sample, int(index))
        raise NoisyLabelError(
            f"Expected samples to be tuples (x, y) or dicts, but sample {index} is a {type(sample).__name__}."
        )

    def _may_draw(self, index: int) -> TypeGuard[EpochIndex]:
        return isinstance(index, EpochIndex) and type(self.dataset) is not TensorDataset


def indexed_set(dataset: Any) -> Any:
    """The set that the indices of a loader's samples count in.

    Of a ``Subset`` of a set whose samples carry their index, that is the set inside, since its samples keep the index
    they have there; of any other, the data set itself.
    """
    inside = inside_subsets(dataset)
    return inside if carries_index(inside) else dataset


def inside_subsets(dataset: Any) -> Any:
    """The set of which a ``Subset``, or a Subset of one, is a part; any other set itself."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def carries_index(dataset: Any) -> bool:
    """Whether the samples of a set, or of what it is a ``Subset`` of, carry their index."""
    inside = inside_subsets(dataset)
    return isinstance(inside, IndexedDataset) or getattr(inside, "indexed", False)


def positions_in(dataset: Any, root: Any) -> Tensor | None:
    """Where the samples of a ``Subset`` stand in a set around which it is, int64 (M,); None of the set itself."""
    if dataset is root or not isinstance(dataset, Subset):
        return None
    here = torch.as_tensor(dataset.indices, dtype=torch.int64)
    further = positions_in(dataset.dataset, root)
    return here if further is None else further[here]


def hides_epoch(dataset: Any) -> bool:
    """Whether a ``Subset`` stands between a loader and a set that augments anew in each epoch."""
    inside = dataset
    while isinstance(inside, (Subset, IndexedDataset)):
        inside = inside.dataset
    return isinstance(dataset, Subset) and getattr(inside, "augments_by_epoch", False)


def known_labels(dataset: Any) -> Tensor | None:
    """The labels of a data set, if they can be had without loading its samples.

    Understands ``targets`` or ``labels`` attributes (as in torchvision, without a ``target_transform``),
    ``TensorDataset``, ``Subset``, ``ConcatDataset`` and :class:`IndexedDataset` around them.

    Returns:
        int64 (N,) on the CPU, or None.
    """
    if isinstance(dataset, Subset):
        inner = known_labels(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [known_labels(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat(cast(list[Tensor], parts))
    if isinstance(dataset, IndexedDataset):
        return known_labels(dataset.dataset)
    if isinstance(dataset, TensorDataset):
        columns = [_as_labels(column, len(dataset)) for column in dataset.tensors[1:]]
        labels = [column for column in columns if column is not None]
        return labels[0] if len(labels) == 1 else None  # of several nobody knows which
    if getattr(dataset, "target_transform", None) is not None:
        return None
    attribute = getattr(dataset, "targets", getattr(dataset, "labels", None))
    return None if attribute is None else _as_labels(attribute, len(dataset))


def _as_labels(values: Any, length: int) -> Tensor | None:
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None
    plain = labels.ndim == 1 and not labels.is_floating_point() and len(labels) == length
    return labels.long().cpu() if plain else None
