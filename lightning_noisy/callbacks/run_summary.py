"""The table at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.files import written_aside
from lightning_noisy.trainer import from_datamodule, run_folder, starts_afresh


class RunSummary(Callback):
    """Prints the best, the last and the mean of the last 5 and 10 epochs of a run, and writes ``summary.json``.

    The figures are test accuracies where the test set is evaluated each epoch (our data modules do), else validation
    accuracies. The best epoch is chosen by validation accuracy; without a validation split nothing chooses, and the
    highest test accuracy is printed as what it is: chosen by the test set. Beside the table stand the realised noise
    rate and the folder of the logs.

    Args:
        metric: What is reported: the first of these names that is logged.
        selects: What chooses the best epoch.
    """

    def __init__(self, metric: tuple[str, ...] = ("test/acc", "val/acc"), selects: str = "val/acc") -> None:
        check_argument(len(metric) > 0, "metric", "at least one name", metric)
        self.metric = tuple(metric)
        self.selects = selects
        self.history: dict[int, dict[str, float]] = {}
        """Figures of each validation: epoch -> name -> value."""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if starts_afresh(trainer):
            self.history = {}

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        names = {*self.metric, self.selects}
        seen = {name: value.item() for name, value in trainer.callback_metrics.items() if name in names}
        if seen:
            self.history[trainer.current_epoch] = seen

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        rows = self.rows()
        if not rows or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        rate = from_datamodule(trainer, "realised_noise_rate")
        rank_zero_info(self.table(rows, rate, folder))
        if folder is not None:
            self._write(Path(folder), rows, rate)

    def reported(self) -> str | None:
        """The metric that the table shows."""
        return next((name for name in self.metric if any(name in seen for seen in self.history.values())), None)

    def rows(self) -> list[tuple[str, float]]:
        """The table: what, and its value in [0, 1]."""
        name = self.reported()
        if name is None:
            return []
        values = {epoch: seen[name] for epoch, seen in sorted(self.history.items()) if name in seen}
        last = list(values.values())
        best = self._best(values)
        rows = [(f"last epoch ({max(values)})", last[-1])]
        rows += [(f"mean of the last {n} epochs", sum(last[-n:]) / n) for n in (5, 10) if len(last) >= n]
        return [best, *rows]

    def table(self, rows: list[tuple[str, float]], noise_rate: float | None, folder: str | None) -> str:
        """The table as text."""
        known = [("realised noise rate", noise_rate)] if noise_rate is not None else []
        width = max(len(label) for label, _ in [*rows, *known])
        lines = [f"{label:<{width}}  {100 * value:6.2f} %" for label, value in [*rows, *known]]
        rule = "-" * max(len(line) for line in lines)
        where = [] if folder is None else [f"logs: {folder}", f"see them with: tensorboard --logdir {folder}"]
        return "\n".join(["", f"{self.reported()}", rule, *lines, rule, *where])

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"history": {epoch: dict(seen) for epoch, seen in self.history.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = {epoch: dict(seen) for epoch, seen in state_dict["history"].items()}

    def _best(self, values: dict[int, float]) -> tuple[str, float]:
        selecting = {e: seen[self.selects] for e in values if self.selects in (seen := self.history[e])}
        if selecting:
            epoch = max(selecting, key=lambda e: selecting[e])
            return f"best epoch ({epoch}, chosen by {self.selects})", values[epoch]
        epoch = max(values, key=lambda e: values[e])
        return f"highest ({epoch}, no validation split: chosen by {self.reported()})", values[epoch]

    def _write(self, folder: Path, rows: list[tuple[str, float]], noise_rate: float | None) -> None:
        content = {
            "metric": self.reported(),
            "rows": dict(rows),
            "realised_noise_rate": noise_rate,
            "epochs": self.history,
        }
        with written_aside(folder / "summary.json") as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())
