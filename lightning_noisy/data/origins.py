"""What the samples and the classes of a data set are in the user's own data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets import DatasetFolder

from lightning_noisy.data.indexed import IndexedDataset
from lightning_noisy.errors import NoisyLabelError, printable

Sources = NDArray[Any]
"""Paths, text (N,), or rows of the original table or array, int64 (N,): one for each sample, by its index."""

CLASS_NAMES, PATH, ROW = "class_names", "path", "row"
"""Names of the arrays that say so in a file."""


@dataclass(frozen=True)
class Origins:
    """What the classes of a run are called, and what its samples are in the user's own data.

    Args:
        dataset: The set that indices count in; None where nobody asks for samples.
        class_names: Names of the classes 0 to K - 1; None where nobody tells them.
    """

    dataset: Any = None
    class_names: tuple[str, ...] | None = None

    def following(self, dataset: Any, class_names: Sequence[str] | None) -> Origins:
        """Those of another set, for a run that goes on with the classes of this one.

        Args:
            dataset: The set.
            class_names: Names of its classes; None asks the set.

        Raises:
            NoisyLabelError: Its classes are others.
        """
        names = known_class_names(dataset) if class_names is None else tuple(class_names)
        check_same_names(self.class_names, names)
        return Origins(dataset, names or self.class_names)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file says of both: ``class_names`` (K,) where they are known, and ``path`` or ``row`` (N,)."""
        return origin_arrays(self.class_names, None if self.dataset is None else sources_of(self.dataset))


def origin_arrays(class_names: Sequence[str] | None, sources: Sources | None) -> dict[str, NDArray[Any]]:
    """Class names and sources by their names in files; text is plain, so that no pickle is needed."""
    arrays = {} if class_names is None else {CLASS_NAMES: np.array(class_names, dtype=np.str_)}
    return arrays if sources is None else {**arrays, PATH if sources.dtype.kind == "U" else ROW: sources}


def sources_of(dataset: Any) -> Sources:
    """What the samples of a map-style data set are in the user's own data, (N,).

    That is what its attribute ``sources`` says, paths or rows in the order of its samples, or the paths of a
    ``torchvision.datasets.ImageFolder``. Of any other set it is the position. A ``Subset`` has those of its part of the
    set inside.
    """
    if isinstance(dataset, Subset):
        return sources_of(dataset.dataset)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, IndexedDataset):
        return sources_of(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        parts = [sources_of(part) for part in dataset.datasets]
        if all(part.dtype.kind == "U" for part in parts):
            return np.concatenate(parts)
    told = getattr(dataset, "sources", None)
    if told is None and isinstance(dataset, DatasetFolder):
        told = [path for path, _ in dataset.samples]
    return np.arange(len(dataset)) if told is None else checked_sources(told, len(dataset))


def checked_sources(told: Any, count: int) -> Sources:
    """Sources as text or int64 (N,).

    Args:
        told: Paths or rows in an array or a list; paths may be bytes, as the file system has them.
        count: Number of samples N.

    Raises:
        NoisyLabelError: Another number, or something else.
    """
    array = np.asarray(told)
    if array.shape != (count,) or array.dtype.kind not in "USiu":
        raise NoisyLabelError(
            f"Expected `sources` of a data set to be {count} paths or rows, one for each sample, but got shape "
            f"{array.shape} of {array.dtype}."
        )
    if array.dtype.kind == "S":
        return np.array([os.fsdecode(path) for path in array.tolist()], dtype=np.str_)
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def known_class_names(dataset: Any) -> tuple[str, ...] | None:
    """Names of the classes, as ``class_names`` or (torchvision) ``classes`` of a data set has them; None without."""
    while isinstance(dataset, (Subset, IndexedDataset)):
        dataset = dataset.dataset
    if isinstance(dataset, ConcatDataset):
        names = {known_class_names(part) for part in dataset.datasets}
        return names.pop() if len(names) == 1 else None
    told = getattr(dataset, CLASS_NAMES, getattr(dataset, "classes", None))
    plain = isinstance(told, (list, tuple)) and len(told) > 0 and all(isinstance(name, str) for name in told)
    return tuple(cast(Sequence[str], told)) if plain else None


def check_same_names(saved: Sequence[str] | None, names: Sequence[str] | None) -> None:
    """Refuse data whose classes are not those that the outputs of a network stand for.

    Args:
        saved: Names of its classes; None where nobody knows them.
        names: Names of the classes of the data; likewise.

    Raises:
        NoisyLabelError: They differ, or their order does.
    """
    if saved is None or names is None or list(saved) == list(names):
        return
    lost, new = [name for name in saved if name not in set(names)], [name for name in names if name not in set(saved)]
    parts = [f"{where} {_quoted(own)}" for where, own in (("has", lost), ("lacks", new)) if own]
    if not parts:
        at = next(i for i, (there, here) in enumerate(zip(saved, names, strict=False)) if there != here)
        parts = [f"has {_quoted([saved[at]])} as class {at}, which is {_quoted([names[at]])} in these data"]
    raise NoisyLabelError(
        f"The checkpoint was trained on other classes than these data have: it {' and '.join(parts)}; use the classes "
        "it was trained on, in their order."
    )


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{printable(name)}'" for name in names[:3]) + more
