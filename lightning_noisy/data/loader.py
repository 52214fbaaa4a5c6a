"""Loaders whose order and augmentation are functions of (seed, epoch), and that save their position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_noisy.collectives import process_count, process_rank
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.random import hash_bits, hash_seed

_ORDER_STREAM = 0x6F72646572  # keeps the order apart from other draws under the same seed

SampleKey = tuple[int, int]
"""(epoch, index): what the sampler asks the training set for, so that workers know the epoch as well."""


class EpochSampler(DistributedSampler[Any]):
    """Shuffles as a function of (seed, epoch), on one process or many, and can start inside an epoch.

    It is a distributed sampler, also for a single process, so that Lightning leaves it as it is. Global batches do not
    depend on the number of processes: rank r takes every W-th sample of the epoch's order from the r-th on, and the
    order is filled up from its beginning until W divides it.

    Args:
        dataset: The training set.
        num_replicas: Number of processes W; None asks torch.distributed.
        rank: This process; None asks torch.distributed.
        seed: Seed of the order.

    Yields:
        Keys ``(epoch, index)``, which :class:`TrainingDataset` and ``IndexedDataset`` understand.

    Example::

        train_set = IndexedDataset(your_train_set)
        loader = ResumableLoader(train_set, batch_size=64, sampler=EpochSampler(train_set))
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int | None = None, rank: int | None = None, seed: int = 0
    ) -> None:
        world = process_count() if num_replicas is None else num_replicas
        super().__init__(dataset, world, process_rank() if rank is None else rank, shuffle=True, seed=seed)
        self._count = len(dataset)  # type: ignore[arg-type]
        self.skip = 0
        """Samples of this rank to pass over, in the current epoch only."""

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; a start inside another one is forgotten."""
        if epoch != self.epoch:
            self.skip = 0
        super().set_epoch(epoch)

    def order(self) -> Tensor:
        """The current epoch's positions over all processes, int64, before they are filled up."""
        return hash_bits(self.seed, _ORDER_STREAM, self.epoch, torch.arange(self._count)).argsort(stable=True)

    def __iter__(self) -> Iterator[Any]:
        order = self.order()
        filled = order.repeat(-(-self.total_size // len(order)))[: self.total_size]
        mine = filled[self.rank :: self.num_replicas].tolist()
        return iter([(self.epoch, index) for index in mine[self.skip :]])


class EvaluationSampler(DistributedSampler[Any]):
    """Every sample exactly once over all processes, without the padding that would count some twice."""

    def __init__(self, dataset: Dataset[Any], num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self._count = len(dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self._count, self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, self._count, self.num_replicas))


class ResumableLoader(DataLoader[Any]):
    """A ``DataLoader`` over an :class:`EpochSampler` that saves how far it has come.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``, so training goes on at the
    next batch when it resumes in the middle of an epoch.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, **options)
        self._epoch = self._batches = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: Lightning asks for the iterator before it sets the epoch, and workers prefetch at once.
        size = self.batch_size or 1
        if isinstance(self.sampler, EpochSampler):
            self._epoch, self._batches = self.sampler.epoch, self.sampler.skip // size
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch and position, and what the position depends on."""
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        return {
            "epoch": sampler.epoch,
            "batches": self._batches if self._epoch == sampler.epoch else 0,
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
            "seed": sampler.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            NoisyLabelError: It lies inside an epoch of another batch size, seed or number of processes.
        """
        sampler = self.sampler
        if not state or not isinstance(sampler, EpochSampler):
            return
        here = self.state_dict()
        for name in ("batch_size", "processes", "seed"):
            if state["batches"] > 0 and state[name] != here[name]:
                raise NoisyLabelError(
                    f"The checkpoint lies inside an epoch with {name}={state[name]}, this run has {here[name]}: "
                    "resume with the same value, or from a checkpoint of the end of an epoch."
                )
        sampler.set_epoch(state["epoch"])
        self._epoch, self._batches, sampler.skip = sampler.epoch, 0, 0
        if state["batches"] < len(self):
            sampler.skip = state["batches"] * here["batch_size"]
            self._batches = state["batches"]


class TrainingDataset(Dataset[Any]):
    """Images with given labels, augmentation and index: ``(image, target, index)``.

    The augmentation of a sample is a function of (seed, epoch, index): torch's CPU generator is set from them for the
    transform alone and put back afterwards, so it does not depend on workers, order or resume.

    Args:
        images: ``images(index)`` loads sample ``index``.
        targets: Given labels, int64 (N,).
        transform: From what ``images`` gives to a tensor.
        seed: Seed of the augmentation.
    """

    def __init__(
        self, images: Callable[[int], Any], targets: Tensor, transform: Callable[[Any], Any], seed: int = 0
    ) -> None:
        self.images = images
        self.targets = targets
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: SampleKey | int) -> tuple[Any, Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image = self.images(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash_seed(self.seed, epoch, index))
            image = self.transform(image)
        return image, self.targets[index], index


class EvaluationDataset(Dataset[Any]):
    """Images with labels: ``(image, target)``, without augmentation.

    Args:
        images: ``images(index)`` loads sample ``index``.
        targets: Labels, int64 (N,).
        transform: From what ``images`` gives to a tensor.
    """

    def __init__(self, images: Callable[[int], Any], targets: Tensor, transform: Callable[[Any], Any]) -> None:
        self.images = images
        self.targets = targets
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return self.transform(self.images(index)), self.targets[index]
