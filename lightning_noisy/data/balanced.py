"""Epochs that hold a part of the training set, all classes alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.epoch_order import first_of_classes


class BalancedSampler(EpochSampler):
    r"""Each epoch draws another class-balanced part of the training set: n samples out of N.

    The samples are shuffled as by :class:`EpochSampler`; in this order each class gets its first
    :math:`\lceil n / K \rceil` samples, and the whole its first n. A class with fewer samples gives all it has, so that
    the epoch is shorter. Classes without a sample do not count in K.

    It is the sampling of DivideMix, ELR+ and DISC on Clothing1M, whose epochs have 1000 to 3000 batches.

    Args:
        dataset: The training set.
        targets: Its given labels, int64 (N,).
        size: Samples n of an epoch, over all processes, in [1, N]; fewer where a class has too few.
        num_replicas: Number of processes W; None asks torch.distributed.
        rank: This process; None asks torch.distributed.
        seed: Seed of the order.

    Raises:
        NoisyLabelError: ``size`` is outside its range.

    References:
        Li et al., DivideMix: Learning with Noisy Labels as Semi-supervised Learning, ICLR 2020.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        targets: Tensor,
        size: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed)
        check_argument(1 <= size <= len(targets), "size", f"an int in [1, {len(targets)}], the samples", size)
        counts = targets.bincount()
        self.targets = targets
        self.quota = -(-size // int((counts > 0).sum()))
        """Samples of a class, at most."""
        self._size = min(size, int(counts.clamp(max=self.quota).sum()))

    @property
    @override
    def size(self) -> int:
        """Samples of an epoch, over all processes."""
        return self._size

    @override
    def _take(self, chosen: Tensor | None, arranged: bool) -> None:
        raise NoisyLabelError("BalancedSampler chooses its samples itself: leave `batches_per_epoch` out to select.")

    @override
    def order(self) -> Tensor:
        return first_of_classes(super().order(), self.targets, self.quota)[: self.size]
