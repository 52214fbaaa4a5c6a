"""Epochs in which each process visits samples of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError, check_argument


class ShardedSampler(EpochSampler):
    """Sample i is always visited by process i mod W, so that only that one has to remember it.

    An epoch's order is that of :class:`EpochSampler`, of which each process takes its own samples. Where one has fewer
    than another, it begins again with its first ones, so that all have as many. Within a process the order is random in
    each epoch, but a batch of all processes always has as many samples of each residue: batches are other ones than
    those of :class:`EpochSampler` or ``DistributedSampler``, and depend on W. With one process both are the same.

    Args:
        dataset: The training set.
        num_replicas: Number of processes W, at most as many as there are samples; None asks torch.distributed.
        rank: This process; None asks torch.distributed.
        seed: Seed of the order.

    Raises:
        NoisyLabelError: More processes than samples; a ``Subset`` of a set that augments anew in each epoch; at
            ``select``, a process without a sample; at ``arrange``, always, since an arranged batch would cross shards.

    Example::

        loader = ResumableLoader(train_set, batch_size=64, sampler=ShardedSampler(train_set))
        Trainer(devices=4, strategy="ddp", callbacks=[SELC(storage=Storage(sharded=True))]).fit(module, loader)
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int | None = None, rank: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed)
        self._check_processes()

    @override
    def order(self) -> Tensor:
        """The current epoch's positions over all processes, int64, filled up: the p-th is of process p mod W."""
        self._check_processes()
        order = super().order()
        self._check_none_is_empty(order)
        processes, size = self.num_replicas, self.num_samples
        shards = [order[order % processes == rank] for rank in range(processes)]
        filled = [shard.repeat(-(-size // len(shard)))[:size] for shard in shards]
        return torch.stack(filled, dim=1).flatten()

    @override
    def _take(self, chosen: Tensor | None, arranged: bool) -> None:
        if arranged:
            raise NoisyLabelError("ShardedSampler cannot arrange batches, which would cross shards: use EpochSampler.")
        if chosen is not None:
            self._check_none_is_empty(chosen)
        super()._take(chosen, arranged)

    @property
    @override
    def num_samples(self) -> int:  # type: ignore[override]
        """Samples of this process: as many as the one with most has."""
        return super().num_samples if self.selection is None else int(self._visits(self.selection).max())

    def _check_processes(self) -> None:
        wanted = f"at most {self._count}, the number of samples"
        check_argument(self.num_replicas <= self._count, "num_replicas", wanted, self.num_replicas)

    def _check_none_is_empty(self, chosen: Tensor) -> None:
        empty = (self._visits(chosen) == 0).nonzero().flatten().tolist()
        check_argument(not empty, "indices", "samples of each process, i mod W", f"none of process {empty[:8]}")

    def _visits(self, chosen: Tensor) -> Tensor:
        """How many of some samples each process has, int64 (W,)."""
        return (chosen % self.num_replicas).bincount(minlength=self.num_replicas)
