"""Data sets in memory, whose samples move by the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lightning_noisy.data.batch_transforms import Draws
from lightning_noisy.data.batch_views import of_batches
from lightning_noisy.data.on_device import DeviceCopies, PendingImages


class InMemoryDataset(Dataset[Any]):
    """Samples of one tensor with given labels: ``(sample, target, index)``, or without the index.

    ``DataLoader`` asks for the keys of a batch at once and gets :class:`Columns`: the rows are gathered and transformed
    together. What is drawn for a sample is a function of (seed, epoch, index).

    Args:
        samples: Images (N', C, H, W) or features (N', D), whose rows ``rows`` belong to the data set.
        rows: Positions among them, int64 (N,).
        targets: Their labels, int64 (N,).
        transform: Of batches, see :class:`~lightning_noisy.data.batch_transforms.BatchTransform`, or of single samples.
        seed: Seed of what is drawn.
        indexed: Whether samples carry their index in [0, N).
        sources: What the samples are in the user's own data, (N,), see :func:`~lightning_noisy.data.sources_of`; None
            are ``rows``.
    """

    augments_by_epoch = True

    def __init__(
        self,
        samples: Tensor,
        rows: Tensor,
        targets: Tensor,
        transform: Callable[[Any], Any],
        seed: int = 0,
        indexed: bool = False,
        sources: NDArray[Any] | None = None,
    ) -> None:
        self.samples = samples
        self.rows = rows
        self.targets = targets
        self.transform = of_batches(transform)
        self.seed = seed
        self.indexed = indexed
        self.sources = rows.numpy() if sources is None else sources
        self.on_device = False
        """Whether batches hold keys, and samples are made where the batch goes."""
        self._copies = DeviceCopies.of(samples)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Columns:
        """The samples at many positions."""
        index, epochs = torch.tensor(indices), [getattr(position, "epoch", 0) for position in indices]
        epoch = torch.full_like(index, epochs[0]) if len(set(epochs)) == 1 else torch.tensor(epochs)
        make = partial(self.made, index, epoch)
        made = PendingImages(make, len(index)) if self.on_device else make(self.samples.device)
        columns = made, self.targets[index]
        return Columns((*columns, index) if self.indexed else columns)

    def made(self, index: Tensor, epoch: Tensor, device: torch.device) -> Any:
        """What the transform makes of samples, on a device; what is drawn for them is the same on each.

        Args:
            index: Positions in the data set, int64 (B,), on the CPU.
            epoch: The epoch of each, int64 (B,), likewise.
            device: Where the samples are gathered and transformed.
        """
        rows = self.rows[index].to(device, non_blocking=True)
        samples = self.samples if device == self.samples.device else self._copies.on(device)
        return self.transform(samples[rows], Draws(self.seed, epoch, index))


class Columns(Sequence[Any]):
    """The samples of a batch, kept as the columns that the batch consists of: nothing is left to be collated.

    It is a sequence of samples as well, for loaders with torch's own ``collate_fn``.

    Args:
        columns: Tensors of B rows each; a list of them for several views.
    """

    def __init__(self, columns: tuple[Any, ...]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[-1])

    def __getitem__(self, position: Any) -> tuple[Any, ...]:
        return tuple(
            [view[position] for view in column] if isinstance(column, list) else column[position]
            for column in self.columns
        )


def collate(batch: Any) -> Any:
    """What a loader makes of a batch: columns are whole already, anything else goes torch's way."""
    return list(batch.columns) if isinstance(batch, Columns) else default_collate(batch)
