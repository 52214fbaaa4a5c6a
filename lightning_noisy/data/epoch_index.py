"""How a sampler tells a data set, through workers too, in which epoch a sample is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any


class EpochIndex(int):
    """A position in a data set, with the epoch in which it is asked for.

    It is the integer that it stands for, so any data set takes it; those of this package, and what they hold inside
    :class:`~lightning_noisy.data.IndexedDataset`, augment anew in each epoch.
    """

    __slots__ = ()  # nothing that the garbage collector has to follow
    epoch = 0

    def __reduce__(self) -> tuple[Any, tuple[int, int]]:
        """How it travels to a worker."""
        return at_epoch, (int(self), self.epoch)


def at_epoch(index: int, epoch: int) -> EpochIndex:
    """A position that is asked for in an epoch."""
    return _indices_of(epoch)(index)


def in_epoch(indices: Iterable[int], epoch: int) -> Iterator[EpochIndex]:
    """Positions that are asked for in an epoch, made as they are read."""
    return map(_indices_of(epoch), indices)


@lru_cache(maxsize=16)
def _indices_of(epoch: int) -> type[EpochIndex]:
    """The type of an epoch's positions: ten times as fast as an attribute of each."""
    return type("EpochIndex", (EpochIndex,), {"__slots__": (), "epoch": epoch})


def epoch_of(index: int) -> int:
    """The epoch in which a position is asked for; 0 where nobody says it."""
    return getattr(index, "epoch", 0)
