"""Loaders whose order and augmentation are functions of (seed, epoch), and that save their position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_noisy.collectives import process_count, process_rank
from lightning_noisy.data.epoch_index import in_epoch
from lightning_noisy.data.indexed import hides_epoch
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.random import hash_bits
from lightning_noisy.private_api import saved_progress

_ORDER_STREAM = 0x6F72646572  # keeps the order apart from other draws under the same seed


class EpochSampler(DistributedSampler[Any]):
    """Shuffles as a function of (seed, epoch), on one process or many, can start inside an epoch and visit a selection.

    It is a distributed sampler, also for a single process, so that Lightning leaves it as it is. Global batches do not
    depend on the number of processes: rank r takes every W-th sample of the epoch's order from the r-th on, and the
    order is filled up from its beginning until W divides it.

    Args:
        dataset: The training set.
        num_replicas: Number of processes W; None asks torch.distributed.
        rank: This process; None asks torch.distributed.
        seed: Seed of the order.

    Yields:
        Positions that know their epoch, see :class:`~lightning_noisy.data.epoch_index.EpochIndex`.

    Raises:
        NoisyLabelError: ``dataset`` is a ``Subset`` of a set that augments anew in each epoch.

    Example::

        train_set = IndexedDataset(your_train_set)
        loader = ResumableLoader(train_set, batch_size=64, sampler=EpochSampler(train_set))
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int | None = None, rank: int | None = None, seed: int = 0
    ) -> None:
        if hides_epoch(dataset):
            raise NoisyLabelError(
                "A Subset hides the epoch from the set inside, whose augmentation would be the same in each: make the "
                "EpochSampler of the whole set, and call `select(subset.indices)`."
            )
        world = process_count() if num_replicas is None else num_replicas
        super().__init__(dataset, world, process_rank() if rank is None else rank, shuffle=True, seed=seed)
        self._count = len(dataset)  # type: ignore[arg-type]
        self.skip = 0
        """Samples of this rank that the next pass begins after; the pass after it is whole."""
        self.selection: Tensor | None = None
        """The samples that are visited, ascending, each as often as it is; None visits all once."""
        self._waiting: list[Tensor | None] = []
        self._begun: int | None = None

    def select(self, indices: Tensor | Sequence[int] | None) -> None:
        """Visit these samples alone, in an order of their own in each epoch.

        Between two epochs it holds at once, and the lengths of sampler and loader follow; inside an epoch, from the
        ``set_epoch`` of the next one on. Under a Trainer call it at an epoch's start, in ``on_train_epoch_start`` or a
        strategy's ``prepare_epoch``; a callback then calls :func:`~lightning_noisy.data.announce_length`, so that the
        Trainer knows how long the epoch is. The selection is saved with the loader. A resume from the last batch of an
        epoch does not pass Lightning's ``on_train_epoch_start`` of the next one, so a callback selects in
        ``on_train_start`` as well; ``prepare_epoch`` is called in any case.

        Args:
            indices: Positions in the data set, int64 (M,) with M >= 1; one that stands there twice is visited twice.
                None visits all again.

        Raises:
            NoisyLabelError: There is none, or one outside the data set.
        """
        chosen = None if indices is None else self._checked(torch.as_tensor(indices))
        if self._begun == self.epoch:
            self._waiting = [chosen]
        else:
            self._visit(chosen)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; a start inside another one is forgotten."""
        if epoch != self.epoch:
            self.skip = 0
            self._follow()
        super().set_epoch(epoch)

    def order(self) -> Tensor:
        """The current epoch's positions over all processes, int64, before they are filled up."""
        if self.selection is None:
            return hash_bits(self.seed, _ORDER_STREAM, self.epoch, torch.arange(self._count)).argsort(stable=True)
        chosen = self.selection
        visit = torch.arange(len(chosen)) - torch.searchsorted(chosen, chosen)  # its first, its second, ...
        return chosen[hash_bits(self.seed, _ORDER_STREAM, self.epoch, chosen, visit).argsort(stable=True)]

    def __iter__(self) -> Iterator[Any]:
        self._begun = self.epoch
        start, self.skip = self.skip, 0
        order = self.order()
        filled = order.repeat(-(-self.total_size // len(order)))[: self.total_size]
        mine = filled[self.rank :: self.num_replicas].tolist()
        return iter(in_epoch(mine[start:], self.epoch))

    def state_dict(self) -> dict[str, Any]:
        """Epoch and selections as plain values."""
        return {"epoch": self.epoch, "seed": self.seed, "selection": self.selection, "waiting": list(self._waiting)}

    def load_state_dict(self, state: dict[str, Any], inside: bool) -> None:
        """Go to a saved epoch and selection.

        Args:
            state: What was saved.
            inside: The epoch has begun.
        """
        self._waiting, self._begun = [], None
        self.set_epoch(state["epoch"])
        self._visit(state["selection"])
        self._waiting, self._begun = list(state["waiting"]), self.epoch if inside else None

    def _checked(self, indices: Tensor) -> Tensor:
        wanted = f"at least one position in [0, {self._count})"
        integers = indices.ndim == 1 and not indices.is_floating_point() and indices.dtype != torch.bool
        check_argument(len(indices) > 0 and integers, "indices", f"{wanted}, int64 (M,)", indices)
        outside = indices[(indices < 0) | (indices >= self._count)]
        check_argument(len(outside) == 0, "indices", wanted, outside.tolist()[:8])
        return indices.long().cpu().sort().values

    def _visit(self, chosen: Tensor | None) -> None:
        self.selection = chosen
        count = self._count if chosen is None else len(chosen)
        self.num_samples = -(-count // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def _follow(self) -> None:
        """Take over what was selected inside the epoch before."""
        if self._waiting:
            self._visit(*self._waiting)
            self._waiting = []


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
    """A ``DataLoader`` over an :class:`EpochSampler` that saves how far training has come.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``, so training goes on at the
    next batch when it resumes in the middle of an epoch, and at the one that an exception has broken.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, **options)
        self._epoch = self._batches = 0

    def __iter__(self) -> PositionedIterator:  # type: ignore[override]
        return PositionedIterator(self)

    def begin(self) -> Iterator[Any]:
        """The batches from where the sampler starts."""
        if isinstance(self.sampler, EpochSampler):
            self._epoch, self._batches = self.sampler.epoch, self.sampler.skip // (self.batch_size or 1)
        return super().__iter__()

    def count(self) -> None:
        """A batch has been given."""
        self._batches += 1

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position, and what the position depends on."""
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        return {
            **sampler.state_dict(),
            "batches": self._position() if self._epoch == sampler.epoch else 0,
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            NoisyLabelError: It lies inside an epoch of another batch size, seed, number of processes or length.
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
        sampler.load_state_dict(state, inside=state["batches"] > 0)
        if state["batches"] > len(self):
            raise NoisyLabelError(
                f"The checkpoint lies after batch {state['batches']} of an epoch, this run has {len(self)}: resume "
                "with the data that wrote it, or from a checkpoint of the end of an epoch."
            )
        self._epoch, self._batches = sampler.epoch, state["batches"]
        sampler.skip = self._batches * here["batch_size"]

    def _position(self) -> int:
        """Batches of the current pass that are over: under a Trainer those that have ended, else those fetched."""
        ended, mode = saved_progress() or (self._batches, "alone")
        if mode == "max_size_cycle" and ended > len(self):
            return ended % len(self)  # a shorter loader starts anew within the epoch
        return min(ended, len(self))


class PositionedIterator(Iterator[Any]):
    """Batches of a ResumableLoader, which begins when the first one is asked for.

    Lightning asks for the iterator before it sets the epoch, and workers would prefetch at once.

    Args:
        loader: The loader, which learns how far it has come.
    """

    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader
        self.batches: Iterator[Any] | None = None
        """The iterator of the ``DataLoader``, from the first batch on."""

    def __next__(self) -> Any:
        if self.batches is None:
            self.batches = self._loader.begin()
        batch = next(self.batches)
        self._loader.count()
        return batch
