"""What a trial says of itself while it trains."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.private_api import Callback


class TrialWatch(Callback):
    """Reports the noisy validation accuracy of each epoch, and stops the run when it is told to.

    Args:
        report: Takes epoch and accuracy, and returns whether the run should stop.
        monitor: Name of the accuracy.
        prunes: Whether runs may be stopped.
    """

    def __init__(self, report: Callable[[int, float], bool], monitor: str, prunes: bool) -> None:
        self.report, self.monitor, self.prunes = report, monitor, prunes
        self.began = False
        """Whether a step was done."""
        self.stopped = False
        """Whether the run was stopped before its last epoch."""

    def attach(self, trainer: Trainer) -> None:
        """Watch a Trainer of one process. Those of several begin theirs with the command line, and know of no trial.

        Raises:
            NoisyLabelError: A Trainer of several processes whose run may have to be stopped.
        """
        if trainer.world_size == 1:
            trainer.callbacks.append(self)  # type: ignore[attr-defined]
        elif self.prunes:
            raise NoisyLabelError(
                "`--pruner` stops runs of one process: give `--trainer.devices 1` and start `tune` once for each "
                "device, or `--pruner none`."
            )

    @override
    def on_train_batch_end(self, *args: object) -> None:
        self.began = True

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        stop = self.report(trainer.current_epoch, noisy_accuracy(trainer, self.monitor))
        if stop and trainer.current_epoch + 1 != trainer.max_epochs:
            self.stopped = trainer.should_stop = True


def noisy_accuracy(trainer: Trainer, monitor: str) -> float:
    """The accuracy that a Trainer has logged last.

    Raises:
        NoisyLabelError: It has not logged this one.
    """
    metrics = trainer.callback_metrics
    logged = ", ".join(sorted(name for name in metrics if name.startswith("val/acc"))) or "none was logged"
    check_argument(monitor in metrics, "monitor", f"a noisy validation accuracy ({logged})", monitor)
    return float(metrics[monitor])
