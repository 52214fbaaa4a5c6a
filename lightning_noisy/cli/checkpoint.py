"""What the command line asks of a checkpoint before a run writes anything."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer

from lightning_noisy.checkpoints.check import check_checkpoint, check_optimizers
from lightning_noisy.modules import StrategyModule


def check_resume(
    trainer: Trainer, module: StrategyModule, path: str | None, command: str, weights_only: bool | None
) -> None:
    """Refuse a checkpoint that a subcommand cannot use; arguments as in :func:`check_checkpoint`.

    Raises:
        NoisyLabelError: Also where the optimizer or its scheduler is another.
    """
    checkpoint = check_checkpoint(trainer, module, path, command, weights_only)
    # A module that configures its own may need a Trainer that runs; the driver of the run's state asks again then.
    if (
        checkpoint is None
        or command != "fit"
        or type(module).configure_optimizers is not StrategyModule.configure_optimizers
    ):
        return
    configured: Any = module.configure_optimizers()
    if isinstance(configured, Optimizer):
        check_optimizers(checkpoint, [configured], [])
    else:
        optimizers, configs = configured
        check_optimizers(checkpoint, optimizers, [config["scheduler"] for config in configs])
