"""A learning rate that rises with each step, on top of a schedule by epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from typing_extensions import override

from lightning_noisy.errors import check_argument, check_count


class Warmup(LRScheduler):
    r"""The first optimizer steps take a growing share of the learning rate that a schedule says.

    .. math:: \eta_t = \min\!\Big(1, \frac{t + 1}{S}\Big)\, \eta_{e(t)}, \qquad t = 0, 1, \dots

    over optimizer steps t, with the schedule's rate of the epoch e(t) that the step lies in. A module of this package
    steps it with each optimizer step, and the schedule with each epoch (:func:`scheduler_configs`); both are saved, so
    a resume inside an epoch is exact. In a module of your own return ``[optimizer], scheduler_configs(warmup)`` from
    ``configure_optimizers``.

    Args:
        optimizer: Any optimizer.
        steps: S, at least 1. Published: 6000 (Nested dropout, ANIMAL-10N).
        schedule: Makes the schedule by epochs from the optimizer; None keeps the optimizer's rate.

    Raises:
        NoisyLabelError: An argument outside its range; a schedule that follows a metric.

    In YAML::

        lr_scheduler:
          class_path: lightning_noisy.optim.Warmup
          init_args:
            steps: 6000
            schedule: {class_path: torch.optim.lr_scheduler.MultiStepLR, init_args: {milestones: [50, 75], gamma: 0.2}}
    """

    def __init__(self, optimizer: Optimizer, steps: int, schedule: LRSchedulerCallable | None = None) -> None:
        check_count(steps, "steps")
        self.steps = steps
        made = ConstantLR(optimizer, factor=1.0) if schedule is None else schedule(optimizer)
        check_argument(not isinstance(made, ReduceLROnPlateau), "schedule", "one that follows no metric", made)
        self.schedule = _Beneath(self, made)
        """The schedule by epochs: steps on rates that are not warmed."""
        super().__init__(optimizer)

    @override
    def get_lr(self) -> list[float]:  # type: ignore[override]
        share = min(1.0, (self.last_epoch + 1) / self.steps)
        return [share * float(rate) for rate in self.schedule.get_last_lr()]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "schedule"}

    def set_rates(self, rates: Sequence[Any]) -> None:
        """Give each group its rate."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class _Beneath(LRScheduler):
    """The schedule beneath a warm-up, which finds the rates as it has left them."""

    def __init__(self, warmup: Warmup, schedule: Any) -> None:
        self.warmup, self.schedule, self.optimizer = warmup, schedule, schedule.optimizer

    @override
    def step(self, epoch: int | None = None) -> None:
        self.warmup.set_rates(self.schedule.get_last_lr())
        self.schedule.step()
        self.warmup.set_rates(self.warmup.get_lr())

    @override
    def get_last_lr(self) -> list[Any]:
        rates: list[Any] = self.schedule.get_last_lr()
        return rates

    @override
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.schedule.state_dict()
        return state

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state_dict)


def scheduler_configs(scheduler: Any) -> list[dict[str, Any]]:
    """How Lightning is to step a scheduler: once an epoch, and a :class:`Warmup` with each optimizer step too.

    Args:
        scheduler: Any scheduler; a ``ReduceLROnPlateau`` of Lightning's command line names its ``monitor``.

    Returns:
        What ``configure_optimizers`` returns as schedulers.
    """
    if isinstance(scheduler, Warmup):
        return [*scheduler_configs(scheduler.schedule), {"scheduler": scheduler, "interval": "step"}]
    monitor = {"monitor": scheduler.monitor} if isinstance(scheduler, ReduceLROnPlateau) else {}
    return [{"scheduler": scheduler, "interval": "epoch", **monitor}]
