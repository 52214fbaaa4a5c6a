"""How a sampler tells a data set, through workers too, in which epoch a sample is asked for."""

from __future__ import annotations

from collections.abc import Iterable


class EpochIndex(int):
    """A position in a data set, with the epoch in which it is asked for.

    It is the integer that it stands for, so any data set takes it; those of this package, and what they hold inside
    :class:`~lightning_noisy.data.IndexedDataset`, augment anew in each epoch.

    Args:
        index: Position in the data set.
        epoch: Number of the epoch, from 0.
    """

    epoch: int

    def __new__(cls, index: int, epoch: int) -> EpochIndex:
        """An integer that knows an epoch."""
        made = super().__new__(cls, index)
        made.epoch = epoch
        return made

    def __reduce__(self) -> tuple[type[EpochIndex], tuple[int, int]]:
        """How it travels to a worker."""
        return EpochIndex, (int(self), self.epoch)


def in_epoch(indices: Iterable[int], epoch: int) -> list[EpochIndex]:
    """Positions that are asked for in an epoch."""
    return [EpochIndex(index, epoch) for index in indices]


def epoch_of(index: int) -> int:
    """The epoch in which a position is asked for; 0 where nobody says it."""
    return getattr(index, "epoch", 0)
