"""Where figures go: TensorBoard, and PNG files in the run's folder."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure


def log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Give a figure to every TensorBoard logger of the trainer, on rank 0."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, global_step=trainer.global_step, close=False)


def save_figure(trainer: Trainer, folder: str | None, name: str, figure: Figure) -> None:
    """Write ``<folder>/figures/<name>.png`` on rank 0, aside first."""
    if not trainer.is_global_zero or folder is None or getattr(trainer, "fast_dev_run", False):
        return
    path = Path(folder) / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".png.tmp")
    figure.savefig(aside, format="png", dpi=150)
    os.replace(aside, path)  # noqa: PTH105
