"""Epochs whose samples are drawn by weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.random import hash_uniform

_STREAM = 0x7765696768746564  # keeps these draws apart from other draws under the same seed


class WeightedEpochSampler(EpochSampler):
    """Each epoch draws n samples with replacement, each sample as often as its weight says.

    The draws are a function of (seed, epoch), equal on all processes. What a second visit of a sample in an epoch means
    to a callback or a loss with memory is said in its docstring.

    Args:
        dataset: The training set.
        weights: Non-negative numbers (N,), not all zero.
        size: Samples n of an epoch, over all processes; None draws as many as there are.
        num_replicas: Number of processes W; None asks torch.distributed.
        rank: This process; None asks torch.distributed.
        seed: Seed of the draws.

    Raises:
        NoisyLabelError: Weights of another number, negative, not finite or all zero; ``size`` < 1.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        weights: Tensor | Sequence[float],
        size: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed)
        check_count(size, "size", optional=True)
        values = torch.as_tensor(weights, dtype=torch.float64)
        fitting = values.shape == (self._count,) and bool(values.isfinite().all()) and bool((values >= 0).all())
        wanted = f"{self._count} finite numbers of at least 0, not all 0, one for each sample"
        check_argument(fitting and bool(values.any()), "weights", wanted, weights)
        self.weights = values
        self._size = self._count if size is None else size

    @property
    @override
    def size(self) -> int:
        """Samples of an epoch, over all processes."""
        return self._size

    @override
    def _take(self, chosen: Tensor | None, arranged: bool) -> None:
        raise NoisyLabelError("WeightedEpochSampler draws its samples: give those that are left out the weight 0.")

    @override
    def order(self) -> Tensor:
        cumulative = self.weights.cumsum(dim=0)
        uniform = hash_uniform(self.seed, _STREAM, self.epoch, torch.arange(self.size))
        drawn = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        return drawn.clamp(max=int(self.weights.nonzero()[-1]))  # what rounding may leave over
