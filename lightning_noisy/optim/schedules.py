"""Learning rates of published recipes that torch's schedulers cannot be composed to from YAML, one class each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count


class _ByEpoch(LRScheduler, ABC):
    """A learning rate that is a function of the epoch."""

    @abstractmethod
    def rate(self, initial: float, epoch: int) -> float:
        """The rate of an epoch, from 0, of a group that has begun with the ``initial`` one."""

    @override
    def get_lr(self) -> list[float]:  # type: ignore[override]
        return [self.rate(float(initial), self.last_epoch) for initial in self.base_lrs]


class LinearDecay(_ByEpoch):
    r"""The learning rate falls linearly to zero, and Adam forgets faster: Co-teaching, JoCoR, SPRL, Jo-SRC, DISC.

    .. math:: \eta_e = \eta_0 \min\!\Big(1, \frac{E - e}{E - s}\Big), \qquad e = 0, \dots, E - 1

    so the last epoch still has :math:`\eta_0 / (E - s)`. From epoch s on :math:`\beta_1` of Adam, or the momentum of
    SGD, is ``final_momentum``.

    Args:
        optimizer: Adam and its like, or SGD.
        total_epochs: E. Published: 200.
        start_epoch: Epoch s, from 0, in [0, E). Published: 80.
        final_momentum: :math:`\beta_1` or momentum from epoch s on; None leaves it. Published: 0.1 after 0.9.

    Raises:
        NoisyLabelError: An argument outside its range; a final momentum for an optimizer without one.

    Example::

        lr_scheduler=lambda optimizer: LinearDecay(optimizer, total_epochs=200, final_momentum=0.1)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_epochs: int,
        start_epoch: int = 80,
        final_momentum: float | None = None,
    ) -> None:
        check_count(total_epochs, "total_epochs")
        check_count(start_epoch, "start_epoch", 0, most=total_epochs - 1)
        momentum = final_momentum is None or 0 <= final_momentum < 1
        check_argument(momentum, "final_momentum", "a float in [0, 1), or None", final_momentum)
        for group in optimizer.param_groups if final_momentum is not None else ():
            has = "betas" in group or "momentum" in group
            check_argument(has, "final_momentum", "None for an optimizer without momentum", final_momentum)
        self.total_epochs, self.start_epoch, self.final_momentum = total_epochs, start_epoch, final_momentum
        super().__init__(optimizer)

    @override
    def rate(self, initial: float, epoch: int) -> float:
        left = (self.total_epochs - epoch) / (self.total_epochs - self.start_epoch)
        return initial * min(1.0, max(0.0, left))

    @override
    def get_lr(self) -> list[float]:  # type: ignore[override]
        if self.final_momentum is not None and self.last_epoch >= self.start_epoch:
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (self.final_momentum, *group["betas"][1:])
                else:
                    group["momentum"] = self.final_momentum
        return super().get_lr()


class CosineDecay(_ByEpoch):
    r"""A warm-up at a rate of its own, then half a cosine: SED.

    .. math:: \eta_e = \eta_T + \frac{\eta_0 - \eta_T}{2}
              \Big(1 + \cos \pi\, \frac{\min(e, T) - s}{T - s}\Big), \qquad e \ge s

    and ``warmup_lr`` in epochs before s. A run that ends before T cuts the curve, as some of the published ones do;
    one that goes on stays at :math:`\eta_T`.

    Args:
        optimizer: Any optimizer, with :math:`\eta_0` as its rate.
        end_epoch: T. Published: 100 or 140 of 100 epochs.
        start_epoch: Epoch s, from 0, in [0, T). Published: 20.
        final_lr: :math:`\eta_T \ge 0`. Published: 5e-4 or 5e-5.
        warmup_lr: Rate before epoch s; None takes :math:`\eta_0`. Published: 0.05 before 0.01, or equal.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        end_epoch: int,
        start_epoch: int = 0,
        final_lr: float = 0.0,
        warmup_lr: float | None = None,
    ) -> None:
        check_count(end_epoch, "end_epoch")
        check_count(start_epoch, "start_epoch", 0, most=end_epoch - 1)
        check_argument(final_lr >= 0, "final_lr", "a float of at least 0", final_lr)
        check_argument(warmup_lr is None or warmup_lr >= 0, "warmup_lr", "a float of at least 0, or None", warmup_lr)
        self.end_epoch, self.start_epoch, self.final_lr, self.warmup_lr = end_epoch, start_epoch, final_lr, warmup_lr
        super().__init__(optimizer)

    @override
    def rate(self, initial: float, epoch: int) -> float:
        if epoch < self.start_epoch:
            return initial if self.warmup_lr is None else self.warmup_lr
        passed = (min(epoch, self.end_epoch) - self.start_epoch) / (self.end_epoch - self.start_epoch)
        return self.final_lr + (initial - self.final_lr) * _falling(passed)


class CosineToConstant(_ByEpoch):
    r"""A cosine that is left for a constant rate, at which weights are averaged: SURE.

    .. math:: c_e = \frac{\eta_0}{2}\Big(1 + \cos \frac{\pi e}{E}\Big), \qquad
              \eta_e = \begin{cases} c_e & e \le s \\ \eta_c + (c_s - \eta_c)\,
              \frac12 \big(1 + \cos \pi \min(1, \tfrac{e - s}{A})\big) & e > s \end{cases}

    the second as torch's ``SWALR``, whose state holds a function, which a checkpoint that is loaded safely may not.

    Args:
        optimizer: Any optimizer, with :math:`\eta_0` as its rate.
        total_epochs: E of the cosine. Published: 200.
        start_epoch: Epoch s, from 0, the first after which
            :class:`~lightning_noisy.callbacks.AveragedWeights` averages. Published: 120.
        constant_lr: :math:`\eta_c \ge 0`. Published: 0.05.
        anneal_epochs: A, at least 1. Published: 10.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_epochs: int,
        start_epoch: int = 120,
        constant_lr: float = 0.05,
        anneal_epochs: int = 10,
    ) -> None:
        check_count(total_epochs, "total_epochs")
        check_count(start_epoch, "start_epoch", 0, most=total_epochs)
        check_argument(constant_lr >= 0, "constant_lr", "a float of at least 0", constant_lr)
        check_count(anneal_epochs, "anneal_epochs")
        self.total_epochs, self.start_epoch = total_epochs, start_epoch
        self.constant_lr, self.anneal_epochs = constant_lr, anneal_epochs
        super().__init__(optimizer)

    @override
    def rate(self, initial: float, epoch: int) -> float:
        left_at = initial * _falling(min(epoch, self.start_epoch) / self.total_epochs)
        annealed = min(1.0, max(0, epoch - self.start_epoch) / self.anneal_epochs)
        return self.constant_lr + (left_at - self.constant_lr) * _falling(annealed)


def _falling(passed: float) -> float:
    """Half a cosine from 1 to 0 over ``passed`` in [0, 1]."""
    return (1 + math.cos(math.pi * passed)) / 2
