"""The positions of each training batch, recorded where a loader hands them out: nothing in a project has to change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from lightning_noisy.data.indexed import carries_index
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.private_api import WatchedLoader


class RecordedKeys(Iterator[Any]):
    """The keys of one iterator's batches, which remembers them until their batch is trained.

    Args:
        keys: What the sampler yields: a list of positions for each batch, or one position.
    """

    def __init__(self, keys: Iterator[Any]) -> None:
        self._keys = keys
        self._handed_out: deque[Any] = deque()
        self._first = 0
        self.total: int | None = None
        """How many batches there were, once there are no more."""

    def __next__(self) -> Any:
        try:
            key = next(self._keys)
        except StopIteration:
            self.total = self._first + len(self._handed_out)
            raise
        self._handed_out.append(key)
        return key

    def of_batch(self, number: int) -> Any:
        """The keys of a batch, from 0; those of the batches before it are forgotten."""
        while self._first < number:
            self._handed_out.popleft()
            self._first += 1
        return self._handed_out[0]


class _RecordedSampler:
    """A sampler of which each iterator is recorded apart, since a loader may be read twice at a time."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __iter__(self) -> RecordedKeys:
        return RecordedKeys(iter(self._sampler))

    def __len__(self) -> int:
        return len(self._sampler)


class RecordingLoader(WatchedLoader):
    """A DataLoader whose iterators record the keys of their batches."""

    def watch(self, sampler: Any) -> Any:
        """The sampler, recorded."""
        return _RecordedSampler(sampler)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies are what the loader was before."""
        return _rebuilt, (_plain_class(self), self.__dict__)


def record(loader: Any) -> None:
    """Let a loader record, in place; one that records already, or of which nobody needs positions, stays as it is.

    So does one with an iterator of its own, which may skip or keep keys in a way that nobody knows.
    """
    plain = isinstance(loader, DataLoader) and type(loader).__iter__ in (DataLoader.__iter__, ResumableLoader.__iter__)
    if not plain or isinstance(loader, RecordingLoader) or isinstance(loader.dataset, IterableDataset):
        return
    if not carries_index(loader.dataset):
        loader.__class__ = _recording(type(loader))  # type: ignore[arg-type]
        loader.renew_persistent()


def stop_recording(loader: Any) -> None:
    """Make a loader what it was."""
    if isinstance(loader, RecordingLoader):
        loader.__class__ = _plain_class(loader)  # type: ignore[assignment]


@cache
def _recording(plain: type[DataLoader[Any]]) -> type[RecordingLoader]:
    return type(plain.__name__, (RecordingLoader, plain), {})


def _plain_class(loader: RecordingLoader) -> type[DataLoader[Any]]:
    plain: type[DataLoader[Any]] = type(loader).__bases__[1]
    return plain


def _rebuilt(plain: type[DataLoader[Any]], attributes: dict[str, Any]) -> DataLoader[Any]:
    loader = plain.__new__(plain)
    loader.__dict__.update(attributes)
    return loader
