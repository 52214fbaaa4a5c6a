"""What strategies share that train one network after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_count
from lightning_noisy.functional.epoch_order import first_of_classes, shuffled
from lightning_noisy.modules.checks import check_finds_unused
from lightning_noisy.modules.multi_network import MultiNetworkModule
from lightning_noisy.state import RunDriver

_ORDER_STREAM = 0x7475726E73


class AlternatingModule(MultiNetworkModule):
    """Base of the strategies in whose epochs one network learns after the other, each from batches of its own.

    ``prepare_epoch`` calls :meth:`take_turns`, ``step`` asks for :attr:`turn`. In a step the other networks have no
    gradient, so the optimizer leaves them as they are, and several processes need
    ``strategy="ddp_find_unused_parameters_true"``. A batch of each turn is whole: the last one is filled up with the
    first samples of its turn. Within an epoch a sample looks the same whenever it is visited, since augmentation is a
    function of epoch and sample.

    Args:
        backbone: See :class:`~lightning_noisy.modules.MultiNetworkModule`, as are the next ones.
        head: Likewise.
        loss: Likewise.
        num_classes: Likewise.
        samples_per_epoch: Samples of an epoch, as many of each class, drawn anew for each; None for all. The division
            into labeled and unlabeled ones uses these alone. On Clothing1M DivideMix takes 32,000 and ELR+ 192,000.
        **options: ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: At fit, DDP that does not look for unused parameters, a training loader with a sampler of its
            own, or a trial of one of Lightning's finders.
    """

    turns: Tensor

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        samples_per_epoch: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_count(samples_per_epoch, "samples_per_epoch", optional=True)
        self.samples_per_epoch = samples_per_epoch
        self.register_buffer("turns", torch.zeros(self.num_networks, 2, dtype=torch.int64))
        self._plan: list[list[int]] | None = None

    def take_turns(self, orders: Sequence[Tensor], first_parts: Sequence[int] | None = None) -> None:
        """Say which samples each network visits in this epoch, in ``prepare_epoch``.

        Args:
            orders: Positions in the training set in the order of their visits, int64 (M,) for each network, M >= 1.
            first_parts: Where batches have two parts, how many samples the first one has, for each network.
        """
        size = self.global_batch_size
        whole = [_whole_batches(order, size) for order in orders]
        self.sampler.arrange(torch.cat(whole))
        ends = torch.tensor([len(order) // size for order in whole]).cumsum(0)
        parts = torch.tensor([size] * len(whole) if first_parts is None else list(first_parts))
        self.turns.copy_(torch.stack([ends, parts], dim=1))
        self._plan = None

    def samples_of_epoch(self, epoch: int) -> Tensor:
        """The samples that an epoch is about, in order, int64 (M,)."""
        every = torch.arange(len(self.given_labels))
        if self.samples_per_epoch is None:
            return every
        order = shuffled(every, _ORDER_STREAM, self.run.seed, epoch)
        classes = len(self.given_labels.unique())  # type: ignore[no-untyped-call]
        quota = -(-self.samples_per_epoch // classes)
        return first_of_classes(order, self.given_labels, quota)[: self.samples_per_epoch].sort().values

    def shuffled_turns(self, epoch: int) -> list[Tensor]:
        """The samples of an epoch in an order for each network."""
        keys = _ORDER_STREAM, self.run.seed, epoch
        return [shuffled(self.samples_of_epoch(epoch), *keys, number) for number in range(self.num_networks)]

    @property
    def turn(self) -> int:
        """The number of the network whose batch this is."""
        return next(number for number, (end, _) in enumerate(self._turns()) if self._batch_number < end)

    @property
    def turn_progress(self) -> tuple[int, int]:
        """How many batches of this turn are over, and how many it has."""
        ends = [0, *(end for end, _ in self._turns())]
        begin, end = ends[self.turn], ends[self.turn + 1]
        return self._batch_number - begin, end - begin

    @property
    def first_part(self) -> int:
        """How many of the rows that this process has of the batch are of its first part."""
        return len(range(self.global_rank, self._turns()[self.turn][1], self.trainer.world_size))

    def first_view(self, images: Any) -> Any:
        """Images, or the first of several views of them."""
        return self.views(images)[0]

    def views(self, images: Any) -> list[Any]:
        """The views of a batch of images, one or several."""
        return list(images) if isinstance(images, (tuple, list)) else [images]

    @override
    def on_fit_start(self) -> None:
        super().on_fit_start()
        check_finds_unused(self.trainer, type(self).__name__)

    @override
    def on_train_start(self) -> None:
        if RunDriver.in_trainer(self.trainer) is None:
            raise NoisyLabelError(
                f"{type(self).__name__} says before each epoch which samples its networks visit, for which Lightning's "
                "finders (learning rate, batch size) leave no time: let them try one network, a NoisyLabelModule."
            )
        self._plan = None  # a checkpoint may have brought another one
        super().on_train_start()

    def _turns(self) -> list[list[int]]:
        """The batch at which each turn ends, and the first part of its batches; read back once an epoch."""
        if self._plan is None:
            self._plan = self.turns.tolist()
        return self._plan

    @property
    def _batch_number(self) -> int:
        return 0 if self.run.batch is None else self.run.batch.batch_idx


def _whole_batches(order: Tensor, size: int) -> Tensor:
    count = -(-len(order) // size) * size
    return order.repeat(-(-count // len(order)))[:count]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode; afterwards its parts are in the modes that they were in."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
