"""Where figures go: TensorBoard, and PNG files in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from lightning_noisy.errors import check_count
from lightning_noisy.files import written_aside
from lightning_noisy.private_api import is_a
from lightning_noisy.trainer_access import run_folder


class FigureWriter:
    """Shows a figure that grows with training: in TensorBoard every n epochs, and as a PNG file at the end.

    Nothing is drawn where there is neither.

    Args:
        draw: Makes the figure of now; called on rank 0 alone. None while there is nothing to show.
        tag: Its name in TensorBoard.
        name: ``figures/<name>.png`` in the run's folder.
        figure_every_n_epochs: How often TensorBoard gets it; also at the end.

    Raises:
        NoisyLabelError: ``figure_every_n_epochs`` is no int of at least 1.
    """

    def __init__(self, draw: Callable[[], Figure | None], tag: str, name: str, figure_every_n_epochs: int) -> None:
        check_count(figure_every_n_epochs, "figure_every_n_epochs")
        self.draw = draw
        self.tag = tag
        self.name = name
        self.every_n_epochs = figure_every_n_epochs

    def end_epoch(self, trainer: Trainer) -> None:
        """An epoch has its figures."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 and _boards(trainer):
            self._show(trainer)

    def end_training(self, trainer: Trainer) -> None:
        """Training is over. A collective."""
        folder = run_folder(trainer)
        figure = self._show(trainer) if folder is not None or _boards(trainer) else None
        if figure is not None and folder is not None:
            write_figure(folder, self.name, figure)

    def _show(self, trainer: Trainer) -> Figure | None:
        figure = self.draw() if trainer.is_global_zero else None
        if figure is not None:
            show_figure(trainer, self.tag, figure)
        return figure


def show_figure(trainer: Trainer, tag: str, figure: Figure) -> None:
    """Show a figure in TensorBoard, where the Trainer logs to it. On rank 0 alone.

    Args:
        trainer: Has the loggers.
        tag: Its name.
        figure: The figure.
    """
    for logger in _boards(trainer):
        logger.experiment.add_figure(tag, figure, global_step=trainer.global_step, close=False)


def write_figure(folder: str | Path, name: str, figure: Figure) -> None:
    """Write a figure as ``figures/<name>.png`` into a run's folder."""
    with written_aside(Path(folder) / "figures" / f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=150)


def _boards(trainer: Trainer) -> list[Any]:
    return [logger for logger in trainer.loggers if is_a(logger, "TensorBoardLogger")]
