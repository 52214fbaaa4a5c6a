"""Which samples a training batch of a Trainer consists of."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_noisy.data.batch import batch_index
from lightning_noisy.data.index_recorder import RecordedKeys
from lightning_noisy.data.indexed import carries_index, positions_in
from lightning_noisy.data.loader import PositionedIterator
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import being_iterated, keys_and_count
from lightning_noisy.trainer_access import LoaderPath

_OTHERWISE = (
    "wrap the training set in `lightning_noisy.data.IndexedDataset`, or say by `index_key` where batches have it"
)


class IndexSource:
    """Where the index of training batches comes from, for each training loader.

    The samples of an :class:`~lightning_noisy.data.IndexedDataset` carry it. Of any other map-style set it is recorded
    where the loader hands positions out, before workers, collation and transfers.

    Args:
        loaders: The training loaders as the Trainer iterates them, by their place in what the project gave.
        root: The set that the index counts in.
    """

    def __init__(self, loaders: Mapping[LoaderPath, Any], root: Any) -> None:
        self._loaders = [_Source(path, loader, root) for path, loader in loaders.items()]
        self.carried_by_one = [source.carried and source.name == "" for source in self._loaders] == [True]
        """Whether there is one loader, whose samples carry the index: nothing else has to be asked."""

    def __str__(self) -> str:
        """In words, for the log."""
        carried = [source.name for source in self._loaders if source.carried]
        if len(carried) == len(self._loaders):
            return "the index that the data set's samples carry"
        others = f", but for the samples of {', '.join(carried)}, which carry it" if carried else ""
        return f"the positions that the loader hands out{others}"

    def of_now(self, trainer: Trainer, content: Any, batch_idx: int) -> dict[str, Callable[[], Tensor]]:
        """How to get the indices (B,) of the batch that a Trainer begins, by the names of the loaders.

        Keys are taken at once, since the loader goes on; tensors are made when they are asked for.

        Args:
            trainer: The Trainer.
            content: The batch.
            batch_idx: Its number in the epoch.
        """
        iterators, ahead = being_iterated(trainer)
        found: dict[str, Callable[[], Tensor]] = {}
        for source, iterator in zip_longest(self._loaders, iterators):
            keys = source.keys(iterator, ahead, first=batch_idx == 0)
            part = source.part(content)
            if part is not None:  # a loader that is at its end
                found[source.name] = partial(source.index, part, keys)
        return found


class _Source:
    """One loader."""

    def __init__(self, path: LoaderPath, loader: Any, root: Any) -> None:
        dataset = getattr(loader, "dataset", None)
        self.name = ".".join(map(str, path))
        self.carried = carries_index(dataset)
        self._path, self._loader = path, loader
        self._positions = positions_in(dataset, root)
        self._in_order = getattr(loader, "in_order", True)
        self._reading: RecordedKeys | None = None
        self._number = 0

    def keys(self, iterator: Any, ahead: bool, first: bool) -> Any:
        """The keys of the batch that is trained, None where they were not recorded.

        Args:
            iterator: Where the loader's batches come from.
            ahead: It has already fetched one batch more, and may by now be the iterator of the next epoch.
            first: The epoch begins.
        """
        if isinstance(iterator, PositionedIterator):
            iterator = iterator.batches
        recorded, count = keys_and_count(iterator)
        if self.carried or not self._in_order or not isinstance(recorded, RecordedKeys) or count == 0:
            return None
        if not ahead:
            return recorded.of_batch(count - 1)
        if first or self._reading is None:
            self._reading, self._number = recorded, 0
            return recorded.of_batch(0) if count > 1 else None  # else the iterator that gave it is gone
        self._number += 1
        if self._number == self._reading.total:
            self._reading, self._number = recorded, 0
        return self._reading.of_batch(self._number)

    def part(self, content: Any) -> Any:
        """What the loader gave of a batch."""
        try:
            for key in self._path:
                content = content[key]
        except (KeyError, IndexError, TypeError):
            raise NoisyLabelError(
                f"The training batch has no part of the loader `{self.name}` any more: what changes its structure "
                "before the step needs `index_key`."
            ) from None
        return content

    def index(self, part: Any, keys: Any) -> Tensor:
        """The index (B,) of a part, int64.

        Raises:
            NoisyLabelError: Nobody knows it.
        """
        if self.carried:
            return batch_index(part)
        if keys is None:
            raise NoisyLabelError(f"The training batch has no index, and {self._why_not_recorded()}: {_OTHERWISE}.")
        try:
            index = torch.as_tensor(
                keys if isinstance(keys, Tensor) else [operator.index(key) for key in _as_list(keys)]
            )
        except (TypeError, ValueError):
            raise NoisyLabelError(
                f"The sampler of {type(self._loader).__name__} hands out keys like {str(keys)[:60]}, which are no "
                f"positions: {_OTHERWISE}."
            ) from None
        index = index.reshape(-1).long()
        return index if self._positions is None else self._positions[index]

    def _why_not_recorded(self) -> str:
        kind = type(self._loader).__name__
        if not isinstance(self._loader, DataLoader):
            return f"{kind} is no DataLoader whose positions could be recorded"
        if isinstance(self._loader.dataset, IterableDataset):
            return f"{type(self._loader.dataset).__name__} is a stream without positions"
        if not self._in_order:
            return "batches come in any order (`in_order=False`)"
        return f"{kind} has an iterator of its own, from which no positions can be read"


def _as_list(keys: Any) -> list[Any]:
    return list(keys) if isinstance(keys, (list, tuple)) else [keys]
