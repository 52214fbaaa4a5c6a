"""Where figures go: TensorBoard, and PNG files in the run's folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from lightning_noisy.files import written_aside


def log_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Give a figure to every TensorBoard logger of the trainer, on rank 0."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(tag, figure, global_step=trainer.global_step, close=False)


def save_figure(trainer: Trainer, folder: str | None, name: str, figure: Figure) -> None:
    """Write ``<folder>/figures/<name>.png`` on rank 0, aside first."""
    if not trainer.is_global_zero or folder is None:
        return
    with written_aside(Path(folder) / "figures" / f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=150)
