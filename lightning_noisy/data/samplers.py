"""Samplers whose order is a function of (seed, epoch), and that can be told what to visit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from lightning_noisy.collectives import process_count, process_rank
from lightning_noisy.data.epoch_index import in_epoch
from lightning_noisy.data.indexed import hides_epoch
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.random import hash_bits

_ORDER_STREAM = 0x6F72646572  # keeps the order apart from other draws under the same seed


class EpochSampler(DistributedSampler[Any]):
    """Shuffles as a function of (seed, epoch), on one process or many, can start inside an epoch and visit a selection.

    It is a distributed sampler, also for a single process, so that Lightning leaves it as it is. Global batches do not
    depend on the number of processes: rank r takes every W-th sample of the epoch's order from the r-th on, and the
    order is filled up from its beginning until W divides it.

    Args:
        dataset: The training set.
        num_replicas: Number of processes W; None asks torch.distributed, whenever it is needed: a Trainer starts the
            processes after a script has made its loaders.
        rank: This process; None asks torch.distributed, likewise.
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
        self._given = num_replicas, rank
        check_argument(0 <= self.rank < self.num_replicas, "rank", f"an int in [0, {self.num_replicas})", rank)
        self.dataset, self.seed, self.epoch, self.shuffle, self.drop_last = dataset, seed, 0, True, False
        self._count = len(dataset)  # type: ignore[arg-type]
        self.skip = 0
        """Samples of this rank that the next pass begins after; the pass after it is whole."""
        self.selection: Tensor | None = None
        """The samples that are visited, each as often as it is; None visits all once."""
        self.arranged = False
        """Whether they are visited in the very order of :attr:`selection`, else in one of each epoch's own."""
        self._waiting: list[tuple[Tensor | None, bool]] = []
        self._begun: int | None = None

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Processes W, as many as there are now."""
        return process_count() if self._given[0] is None else self._given[0]

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process."""
        return process_rank() if self._given[1] is None else self._given[1]

    @property
    def size(self) -> int:
        """Samples of the epoch, over all processes, before they are filled up."""
        return self._count if self.selection is None else len(self.selection)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Samples of this process."""
        return -(-self.size // self.num_replicas)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Samples of all processes."""
        return self.num_samples * self.num_replicas

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
        chosen = None if indices is None else self._checked(torch.as_tensor(indices), "indices").sort().values
        self._take(chosen, arranged=False)

    def arrange(self, order: Tensor | Sequence[int]) -> None:
        """Visit exactly these samples in exactly this order, until another call; otherwise as :meth:`select`.

        So a batch can have parts (B labelled samples, then B unlabelled ones) and an epoch phases, without a second
        loader. With W processes each has every W-th sample of a batch, so parts whose size W divides stay parts.

        Args:
            order: Positions in the data set, int64 (M,) with M >= 1, each as often as it is visited.

        Raises:
            NoisyLabelError: There is none, or one outside the data set.
        """
        self._take(self._checked(torch.as_tensor(order), "order"), arranged=True)

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
        if self.arranged:
            return chosen
        visit = torch.arange(len(chosen)) - torch.searchsorted(chosen, chosen)  # its first, its second, ...
        return chosen[hash_bits(self.seed, _ORDER_STREAM, self.epoch, chosen, visit).argsort(stable=True)]

    def __iter__(self) -> Iterator[Any]:
        self._begun = self.epoch
        start, self.skip = self.skip, 0
        order, processes = self.order(), self.num_replicas
        size = self.num_samples * processes
        mine = order.repeat(-(-size // len(order)))[:size][self.rank :: processes].tolist()
        return in_epoch(mine[start:], self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and selections as plain values."""
        return {
            "epoch": self.epoch,
            "seed": self.seed,
            "selection": self.selection,
            "arranged": self.arranged,
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: dict[str, Any], inside: bool) -> None:
        """Go to a saved epoch and selection.

        Args:
            state: What was saved.
            inside: The epoch has begun.
        """
        self._waiting, self._begun = [], None
        self.set_epoch(state["epoch"])
        self._visit(state["selection"], state["arranged"])
        self._waiting, self._begun = list(state["waiting"]), self.epoch if inside else None

    def _checked(self, indices: Tensor, name: str) -> Tensor:
        wanted = f"at least one position in [0, {self._count})"
        integers = not indices.is_floating_point() and indices.dtype != torch.bool
        check_argument(indices.ndim == 1 and len(indices) > 0 and integers, name, f"{wanted}, int64 (M,)", indices)
        outside = indices[(indices < 0) | (indices >= self._count)]
        check_argument(len(outside) == 0, name, wanted, outside.tolist()[:8])
        return indices.long().cpu()

    def _take(self, chosen: Tensor | None, arranged: bool) -> None:
        if self._begun == self.epoch:
            self._waiting = [(chosen, arranged)]
        else:
            self._visit(chosen, arranged)

    def _visit(self, chosen: Tensor | None, arranged: bool) -> None:
        self.selection, self.arranged = chosen, arranged

    def _follow(self) -> None:
        """Take over what was selected inside the epoch before."""
        if self._waiting:
            self._visit(*self._waiting.pop())


class EvaluationSampler(DistributedSampler[Any]):
    """Every sample exactly once over all processes, without the padding that would count some twice."""

    def __init__(self, dataset: Dataset[Any], num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        self._count = len(dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self._count, self.num_replicas))

    def __len__(self) -> int:
        return len(range(self.rank, self._count, self.num_replicas))
