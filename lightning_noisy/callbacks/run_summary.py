"""The table at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from lightning_noisy.callbacks.said_once import say_once
from lightning_noisy.errors import check_argument
from lightning_noisy.files import written_aside
from lightning_noisy.functional.collapse import SeesLostClasses
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver, Section
from lightning_noisy.trainer_access import from_datamodule, run_folder


class RunSummary(Callback):
    """Prints the best, the last and the mean of the last 5 and 10 epochs of a run, and writes ``summary.json``.

    Epochs that are not validated (``check_val_every_n_epoch``) count for nothing: each row names those that went in.

    The metrics are test accuracies where the test set is evaluated each epoch (our data modules do), else validation
    accuracies. The best epoch is chosen by validation accuracy; without a validation split nothing chooses, and the
    highest test accuracy is printed as what it is: chosen by the test set. Beside it stand further metrics of the same
    epochs, below it the noise rate, as what the run injected or as what its data came with, and the folder of the logs.

    Classes that the last evaluation has (almost) never predicted though they have labels are said in a line, with what
    to try, and stand in ``summary.json`` as ``collapse``. A module of another project is asked if it has a method
    ``lost_classes_line() -> str | None``; without one, :class:`TrainingDynamics` says it of the training set.

    Args:
        metric: What is reported: the first of these names that is logged.
        monitor: What chooses the best epoch.
        also: Further metrics, as far as they are logged; by default those of a second test set, of top 5, and the
            success of a backdoor.

    Raises:
        NoisyLabelError: ``metric`` is empty, or it or ``also`` a string.
    """

    def __init__(
        self,
        metric: tuple[str, ...] = ("test/acc", "val/acc"),
        monitor: str = "val/acc",
        also: tuple[str, ...] = ("test/acc_top5", "imagenet/acc", "imagenet/acc_top5", "backdoor/success"),
    ) -> None:
        for name, value in (("metric", metric), ("also", also)):
            check_argument(not isinstance(value, str), name, "a tuple of names", value)
        check_argument(len(metric) > 0, "metric", "at least one name", metric)
        self.metric = tuple(metric)
        self.monitor = monitor
        self.also = tuple(also)
        self.section = Section(type(self).__name__, per_sample=False)
        """What the callback keeps."""

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Metrics of each validation: epoch -> name -> value."""
        return self.section.history

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        RunDriver.of(trainer).add(self.section)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        names = {*self.metric, self.monitor, *self.also}
        seen = {name: value.item() for name, value in trainer.callback_metrics.items() if name in names}
        if seen:
            self.history[trainer.current_epoch] = seen

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        rows = self.rows()
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        if not rows:
            seen = ", ".join(map(str, trainer.callback_metrics)) or "nothing"
            rank_zero_warn(
                f"{type(self).__name__} has no table: it looks for {' or '.join(self.metric)} at the end of each "
                f"validation, this run has logged {seen}; name others by `metric`."
            )
            return
        rate = from_datamodule(trainer, "realized_noise_rate")
        injected = [from_datamodule(trainer, name) for name in ("noise", "backdoor")]
        names = " and ".join(type(one).__name__ for one in injected if one is not None)
        measured = f"injected by {names}" if names else "realized noise rate"
        rank_zero_info(self.table(rate, folder, measured))
        collapse = pl_module.lost_classes_line() if isinstance(pl_module, SeesLostClasses) else None
        say_once(collapse)
        if folder is not None:
            self._write(Path(folder), rate, collapse)

    def reported(self) -> str | None:
        """The metric that the table shows."""
        return next((name for name in self.metric if any(name in seen for seen in self.history.values())), None)

    def columns(self) -> list[str]:
        """What the table shows: the metric, and of the further metrics those that stand beside it in every epoch."""
        name = self.reported()
        if name is None:
            return []
        epochs = [self.history[epoch] for epoch in self._reporting()]
        return [name, *(other for other in self.also if other != name and all(other in seen for seen in epochs))]

    def rows(self, column: str | None = None) -> list[tuple[str, float]]:
        """The table: what, and its value in [0, 1].

        Args:
            column: One of :meth:`columns`; None is the metric itself.
        """
        name = column or self.reported()
        if name is None:
            return []
        epochs = self._reporting()
        values = [self.history[epoch][name] for epoch in epochs]
        label, best = self._best(epochs)
        rows = [(label, self.history[best][name]), (f"last epoch ({epochs[-1]})", values[-1])]
        return rows + [(_mean_of(epochs[-n:]), sum(values[-n:]) / n) for n in (5, 10) if len(values) >= n]

    def table(self, noise_rate: float | None, folder: str | None, noise: str = "realized noise rate") -> str:
        """The table as text.

        Args:
            noise_rate: Share of wrong labels, None where nobody knows it.
            folder: Where the logs are, None without any.
            noise: What the row of the noise rate is called.
        """
        columns = self.columns()
        rows = [(label, [dict(self.rows(name))[label] for name in columns]) for label, _ in self.rows()]
        rows += [(noise, [noise_rate])] if noise_rate is not None else []
        width = max(len(label) for label, _ in rows)
        lines = [label.ljust(width) + "".join(map(_cell, columns, values)) for label, values in rows]
        title = " " * width + "".join(f"  {name:>8}" for name in columns)
        rule = "-" * len(title)
        where = [] if folder is None else [f"logs: {folder}", f"see them with: tensorboard --logdir {folder}"]
        return "\n".join(["", title, rule, *lines, rule, *where])

    def _reporting(self) -> list[int]:
        """The epochs with the metric, in their order."""
        name = self.reported()
        return sorted(epoch for epoch, seen in self.history.items() if name in seen)

    def _best(self, epochs: list[int]) -> tuple[str, int]:
        """The best of these epochs, and how it was chosen."""
        selecting = {e: seen[self.monitor] for e in epochs if self.monitor in (seen := self.history[e])}
        if selecting:
            epoch = max(selecting, key=lambda e: selecting[e])
            return f"best epoch ({epoch}, chosen by {self.monitor})", epoch
        name = self.columns()[0]
        epoch = max(epochs, key=lambda e: self.history[e][name])
        return f"highest ({epoch}, no validation split: chosen by {name})", epoch

    def _write(self, folder: Path, noise_rate: float | None, collapse: str | None) -> None:
        content = {
            "metric": self.reported(),
            "rows": dict(self.rows()),
            "also": {name: dict(self.rows(name)) for name in self.columns()[1:]},
            "realized_noise_rate": noise_rate,
            "collapse": collapse,
            "epochs": self.history,
        }
        with written_aside(folder / "summary.json") as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def _mean_of(epochs: list[int]) -> str:
    """What a mean is of; epochs that have no metric, as between two validations, are not in it."""
    first, last, count = epochs[0], epochs[-1], len(epochs)
    if last - first == count - 1:
        return f"mean of the last {count} epochs ({first} to {last})"
    return f"mean of the last {count} validations (epochs {', '.join(map(str, epochs))})"


def _cell(column: str, value: float) -> str:
    """A share under its column's name."""
    return f"  {f'{100 * value:.2f} %':>{max(8, len(column))}}"
