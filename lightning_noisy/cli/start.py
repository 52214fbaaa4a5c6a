"""The start of a run on the command line: what it makes before its first step, so that a failed one leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from lightning_noisy.cli.checks import check_trained
from lightning_noisy.files import Made
from lightning_noisy.private_api import Callback

CONFIG_FILE = "config.yaml"


class Start(Callback):
    """Knows whether a run has done its first step, and which files and folders it has made before."""

    def __init__(self) -> None:
        self.over = False
        """Whether a step is done."""
        self._made: list[Made] = []
        self._untrained = False

    def watch(self, trainer: Trainer, untrained: bool) -> None:
        """Take note of what this Trainer is about to make, and be told of its steps.

        Args:
            trainer: The Trainer.
            untrained: Whether random weights may be evaluated.
        """
        self._untrained = untrained
        for path in {_made_by(logger) for logger in trainer.loggers} or {Path(trainer.default_root_dir, CONFIG_FILE)}:
            self.makes(path)
        self.follow(trainer)

    def makes(self, path: Path) -> None:
        """Take note of what is about to be made.

        Args:
            path: A file or folder.
        """
        self._made.append(Made(path))

    def follow(self, trainer: Trainer) -> None:
        """Be told of the steps of a Trainer.

        Args:
            trainer: The Trainer.
        """
        trainer.callbacks.append(self)  # type: ignore[attr-defined]

    def undo(self) -> None:
        """Remove what was made, unless a step is done: the run's folder, and folders above it that are empty then."""
        if not self.over and getattr(rank_zero_only, "rank", 0) in (0, None):
            for made in self._made:
                made.remove()
        self._made = []

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            check_trained("validate", trainer.ckpt_path, self._untrained)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_trained("test", trainer.ckpt_path, self._untrained)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_trained("predict", trainer.ckpt_path, self._untrained)

    @override
    def on_train_batch_end(self, *args: Any) -> None:
        self.over = True

    @override
    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.over = self.over or trainer.state.fn != "fit"  # that of a fit comes before its first step as well

    @override
    def on_test_batch_end(self, *args: Any) -> None:
        self.over = True

    @override
    def on_predict_batch_end(self, *args: Any) -> None:
        self.over = True


def _made_by(logger: Logger) -> Path:
    """The folder that is a logger's alone; without one, the configuration that Lightning puts where it saves."""
    folder = getattr(logger, "log_dir", None)
    return Path(folder) if isinstance(folder, str) else Path(logger.save_dir or ".", CONFIG_FILE)
