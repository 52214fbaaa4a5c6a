"""Numbers on submodules and callbacks that change with training time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.schedules import bootstrapping_weight, linear
from lightning_noisy.private_api import Callback, batches_processed
from lightning_noisy.state import RunDriver
from lightning_noisy.targets import CRITERION_NAMES


class ScheduleCallback(Callback, ABC):
    """Base of the schedules: knows the total number of epochs, and sets its values at the start of each.

    Args:
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.
        interval: ``"epoch"``, or ``"step"`` to set them for every training batch.
    """

    def __init__(self, total_epochs: int | None, interval: str = "epoch") -> None:
        check_argument(interval in ("epoch", "step"), "interval", "'epoch' or 'step'", interval)
        check_count(total_epochs, "total_epochs", optional=True)
        self.total_epochs = total_epochs
        self.interval = interval
        self._span = 1

    @abstractmethod
    def values(self, pl_module: LightningModule, now: float, total_epochs: int) -> dict[str, float]:
        """Dotted names of numbers, and their values after ``now`` of ``total_epochs`` epochs."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        RunDriver.of(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for path in self.values(pl_module, 0, 1):
            find_number(trainer, pl_module, path)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run, owner = RunDriver.of(trainer), type(self).__name__
        self._span = run.total_epochs(owner, self.total_epochs, key=self.state_key)
        if self.interval == "step" and trainer.num_training_batches == float("inf"):
            rank_zero_warn(
                f"{owner} moves once an epoch, not with every step: the training loader has no length, so nobody knows "
                "which share of an epoch a step is."
            )
        # A resume does not pass the start of the epoch that it is in, which may be a new one.
        self._set_values(trainer, pl_module, batches_processed(trainer) % trainer.num_training_batches)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._set_values(trainer, pl_module, next_batch=0)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # At the start of the next batch it would be late for callbacks that stand before this one.
        if self.interval == "step" and not trainer.is_last_batch:
            self._set_values(trainer, pl_module, batch_idx + 1)

    def _set_values(self, trainer: Trainer, pl_module: LightningModule, next_batch: float) -> None:
        """Set the numbers to their values for a batch of the current epoch."""
        passed = next_batch / trainer.num_training_batches if self.interval == "step" else 0.0
        now = min(trainer.current_epoch + passed, self._span)
        for path, value in self.values(pl_module, now, self._span).items():
            owner, name = find_number(trainer, pl_module, path)
            setattr(owner, name, value)


class ParameterSchedule(ScheduleCallback):
    r"""Moves a number on any submodule or callback linearly.

    .. math:: v(i) = v_s + (v_e - v_s) \min(1, i / E), \qquad i = 0, \dots, E - 1

    so the last epoch has not quite reached the end, as in the published schedules. Between two batches the number has
    its value for the next one, so the order of callbacks is no matter.

    Args:
        target: Dotted name of the number, e.g. ``"loss.q"``; where there is no such submodule, of a callback's number
            by the callback's class, e.g. ``"MaskRefresh.ratio"``.
        start: Value at the start of training.
        end: Value after the last epoch.
        interval: ``"epoch"``, or ``"step"`` for every training batch, with i counted in fractions of an epoch.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.

    Raises:
        NoisyLabelError: At start: no such submodule, callback or number, several callbacks of that class, or a Trainer
            without ``max_epochs``.

    Example::

        Trainer(max_epochs=100, callbacks=[ParameterSchedule("loss.q", start=0.0, end=1.0)])
    """

    def __init__(
        self, target: str, start: float, end: float, interval: str = "epoch", total_epochs: int | None = None
    ) -> None:
        super().__init__(total_epochs, interval)
        check_argument("." in target, "target", "a dotted name such as 'loss.q'", target)
        self.target = target
        self.start = start
        self.end = end

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(target=self.target)

    @override
    def values(self, pl_module: LightningModule, now: float, total_epochs: int) -> dict[str, float]:
        return {self.target: linear(self.start, self.end, now, total_epochs)}


class DALSchedule(ScheduleCallback):
    r"""The schedule of dynamics-aware loss (DAL): from fitting to robustness, then bootstrapping.

    .. math:: q(i) = q_s + (q_e - q_s) \frac{i}{E}, \qquad
              \lambda(i) = \lambda_e \max\!\Big(0, \frac{i - t_0}{E - t_0}\Big), \qquad
              t_0 = \frac{(1 - q_s) E}{q_e - q_s}

    for epochs i = 0, ..., E - 1: bootstrapping starts when q passes 1, and the end values are never quite reached, as
    in the official code (whose :math:`\lambda_e` is fixed at 1). ``q_start=0`` starts at cross entropy; with
    ``q_end <= 1`` there is no bootstrapping.

    Args:
        q_start: :math:`q_s \ge 0`. Published: 0.8 on CIFAR-10, 0.6 on CIFAR-100 and ANIMAL-10N, 0.4 on WebVision.
        q_end: :math:`q_e \ge q_s`. Published: 1.5.
        lam_end: :math:`\lambda_e \ge 0`. Published: 1.0.
        target: Dotted name of the loss, which has ``q`` and ``lam``; None takes ``loss``, else ``criterion``.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.

    Raises:
        NoisyLabelError: An argument outside its range; at start: no such loss, or a Trainer without ``max_epochs``.

    References:
        Li et al., Dynamics-Aware Loss for Learning with Label Noise.

    Example::

        Trainer(max_epochs=150, callbacks=[DALSchedule(q_start=0.8)])
    """

    def __init__(
        self,
        q_start: float,
        q_end: float = 1.5,
        lam_end: float = 1.0,
        target: str | None = None,
        total_epochs: int | None = None,
    ) -> None:
        super().__init__(total_epochs)
        check_argument(q_start >= 0, "q_start", "a float of at least 0", q_start)
        check_argument(q_end >= q_start, "q_end", "a float of at least `q_start`", q_end)
        check_argument(lam_end >= 0, "lam_end", "a float of at least 0", lam_end)
        self.q_start = q_start
        self.q_end = q_end
        self.lam_end = lam_end
        self.target = target

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(target=self.target)

    @override
    def values(self, pl_module: LightningModule, now: float, total_epochs: int) -> dict[str, float]:
        children = dict(pl_module.named_children())
        loss = self.target or next((name for name in CRITERION_NAMES if name in children), CRITERION_NAMES[0])
        return {
            f"{loss}.q": linear(self.q_start, self.q_end, now, total_epochs),
            f"{loss}.lam": bootstrapping_weight(self.q_start, self.q_end, self.lam_end, now, total_epochs),
        }


def find_number(trainer: Trainer, root: nn.Module, path: str) -> tuple[nn.Module | Callback, str]:
    """The submodule or callback, and the attribute, behind a dotted name.

    Raises:
        NoisyLabelError: There is no such submodule and not exactly one such callback, or no number of that name on it.
    """
    prefix, _, name = path.rpartition(".")
    owner = dict(root.named_modules(remove_duplicate=False)).get(prefix) or _find_callback(trainer, root, path)
    value = getattr(owner, name, None)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise NoisyLabelError(f"Cannot schedule `{path}`: there is no number `{name}` on `{prefix}`.")
    return owner, name


def _find_callback(trainer: Trainer, root: nn.Module, path: str) -> Callback:
    """The only callback of the class that a dotted name begins with."""
    prefix = path.rpartition(".")[0]
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if type(callback).__name__ == prefix]
    if len(found) != 1:
        count = f"{len(found)} callbacks" if found else "no callback"
        raise NoisyLabelError(
            f"Cannot schedule `{path}`: {type(root).__name__} has no submodule `{prefix}`, and the Trainer has {count} "
            "of that class; exactly one was wanted."
        )
    return found[0]
