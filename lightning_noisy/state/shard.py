"""Which samples a process keeps rows of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_noisy.collectives import process_count, process_rank
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.storage import Storage

_NOWHERE = -1


@dataclass(frozen=True)
class Shard:
    """The samples r, r + W, r + 2 W, ... of process r; by default all of them."""

    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, storage: Storage) -> Shard:
        """What this process keeps."""
        return cls(process_rank(), process_count()) if storage.sharded else cls()

    def size(self, num_samples: int) -> int:
        """How many they are, of N."""
        return len(range(self.rank, num_samples, self.count))

    def samples(self, num_samples: int) -> Tensor:
        """The samples, of N, int64."""
        return torch.arange(self.rank, num_samples, self.count)

    def of_all(self, rows: Tensor) -> Tensor:
        """The rows of these samples among those of all."""
        return rows[self.rank :: self.count]

    def places(self, index: Tensor) -> Tensor:
        """Where the rows of samples lie; of another process's samples nowhere, so that nothing is read or written.

        Raises:
            NoisyLabelError: ``index`` is on the CPU, and has one of another process.
        """
        if self.count == 1:
            return index
        own = index % self.count == self.rank
        if index.device.type == "cpu" and not own.all():
            raise NoisyLabelError(
                f"Process {self.rank} keeps rows of every {self.count}-th sample alone, but got sample "
                f"{int(index[~own][0])} of process {int(index[~own][0]) % self.count}: let the loader have a "
                "`ShardedSampler`, or leave `sharded` out of the `storage`."
            )
        return (index // self.count).masked_fill(~own, _NOWHERE)
