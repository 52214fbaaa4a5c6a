"""A process that takes part in a search: it runs trials until none is left, and trains on all data."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from optuna.trial import Trial

from lightning_noisy.errors import NoisyLabelError, printable
from lightning_noisy.files import written_aside
from lightning_noisy.recipes import TENSORBOARD
from lightning_noisy.reports.search import Point, chosen_point, search_figure, search_table, shown
from lightning_noisy.trainer_access import run_folder
from lightning_noisy.tuning import ALL_DATA, TRIAL, Fit
from lightning_noisy.tuning.journal import Journal
from lightning_noisy.tuning.proposals import Listing, Proposals
from lightning_noisy.tuning.study import SharedStudy
from lightning_noisy.tuning.watch import TrialWatch, noisy_accuracy

POLL = 2.0
"""Seconds between two looks at what other processes run."""


@dataclass(frozen=True)
class Worker:
    """One process's part in a search."""

    fit: Fit
    given: list[str]
    """Arguments of ``fit`` that are not searched."""
    output: Path
    """Folder of runs and results."""
    journal: Journal
    monitor: str
    """What chooses."""
    val_fraction: float
    pruner: str
    asked: dict[str, Any]
    """What all processes of the search have in common."""

    def run(self, proposals: Proposals) -> dict[str, Any]:
        """Take part until the search is over.

        Args:
            proposals: The points of the search.

        Returns:
            What is in the results file.

        Raises:
            NoisyLabelError: The journal has another search; or no point was trained to its end.
        """
        self.journal.begin(TRIAL, self.asked)
        search = SharedStudy(self.journal, TRIAL, proposals, self.pruner)
        for trial in _claims(search, stay=True):
            self._try(search, trial)
            self._write(search)
        points = search.points()
        _say(f"\n{search_table(points, self.monitor)}\n")
        with written_aside(self.output / "search.png") as file:
            search_figure(points, self.monitor).savefig(file, format="png", dpi=140)
        chosen = chosen_point(points)
        if chosen is None:
            raise NoisyLabelError(f"No point was trained to its end, so none is chosen: see '{self.output}'.")
        final = self._on_all_data(chosen)
        for trial in _claims(final, stay=False):
            _say(f"Training on all data: {shown(chosen.values)}")
            with final.alive(trial):
                trainer = self._train(final, trial, ["--data.val_fraction", "0"], lambda trainer: None)
                final.finish(trial, chosen.score, folder=_folder(trainer))
        record = self._write(search)
        where = record["retrained"]["folder"] if record["retrained"] else "another process is at it"
        _say(f"Results: {self.output / 'results.json'}; trained on all data: {where or 'done'}")
        return record

    def _try(self, study: SharedStudy, trial: Trial) -> None:
        """Run a trial. What fails after its first step costs itself alone; before, the arguments are wrong."""
        _say(f"Trial {trial.number}: {shown(trial.user_attrs['values'])}")
        watch = TrialWatch(partial(study.report, trial), self.monitor, self.pruner != "none")
        with study.alive(trial):
            try:
                split = ["--data.noisy_val", "true", "--data.val_fraction", str(self.val_fraction)]
                trainer = self._train(study, trial, split, watch.attach)
                score = None if watch.stopped else noisy_accuracy(trainer, self.monitor)
                counts = study.finish(trial, score, folder=_folder(trainer))
            except (Exception, SystemExit) as error:
                if not (watch.began and _is_failure(error)):
                    raise
                counts = study.fail(trial, printable(error.__cause__ or error))
        if not counts:
            _say(f"Trial {trial.number} gave no sign of life for too long: another process runs it, this one is void.")

    def _on_all_data(self, chosen: Point) -> SharedStudy:
        """The study of one point, whose run the others may see to."""
        return SharedStudy(self.journal, ALL_DATA, Listing([dict(chosen.values)]), most_deaths=None)

    def _train(
        self, study: SharedStudy, trial: Trial, last: Sequence[str], attach: Callable[[Trainer], None]
    ) -> Trainer:
        """Train in a folder of the trial's own, unless the arguments name a logger."""
        folder = self.output / f"{study.name}_{trial.number}"
        shutil.rmtree(folder, ignore_errors=True)
        places = {"save_dir": folder.parent, "name": folder.name, "version": ""}
        logger = [
            f"--trainer.logger={TENSORBOARD}",
            *(f"--trainer.logger.{key}={place}" for key, place in places.items()),
        ]
        values = [f"--{name}={value}" for name, value in trial.user_attrs["values"].items()]  # -1e-3 is no option
        return self.fit([*logger, *self.given, *values, *last], attach)

    def _write(self, search: SharedStudy) -> dict[str, Any]:
        """Write what is known by now. No other process writes at the same time."""
        with self.journal.turn():
            points = search.points()
            chosen = chosen_point(points)
            done = [] if chosen is None else self._on_all_data(chosen).points()
            retrained = [{"values": dict(p.values), "folder": p.folder} for p in done if p.state == "complete"]
            record = {
                **self.asked,
                "points": [point.as_json() for point in points],
                "chosen": None if chosen is None else dict(chosen.values),
                "retrained": retrained[0] if retrained else None,
            }
            with written_aside(self.output / "results.json") as file:
                file.write((json.dumps(record, indent=2) + "\n").encode())
            with written_aside(self.output / "results.txt") as file:
                file.write((search_table(points, self.monitor) + "\n").encode())
        return record


def _claims(study: SharedStudy, stay: bool) -> Iterator[Trial]:
    """Trials to run, until nothing is left to begin and others run none.

    Args:
        study: Has them.
        stay: Whether to wait for others that are known to live.
    """
    said: list[str] = []
    while True:
        trial = study.claim()
        if trial is not None:
            yield trial
            continue
        running = study.running()
        if not running:
            return
        if running != said:
            _say(f"Others are at work ({'; '.join(running)}). Interrupt to leave it to them.")
            said = running
        if not stay and study.others_live():
            return
        time.sleep(POLL)


def _folder(trainer: Trainer) -> str | None:
    folder = run_folder(trainer)
    return None if folder is None else str(Path(folder))


def _is_failure(error: BaseException) -> bool:
    """Whether a run failed by itself. Of what ``fit`` has not put in a line the traceback is printed."""
    if isinstance(error, SystemExit):
        return error.code == 2
    traceback.print_exception(error)
    return True


def _say(text: str) -> None:
    print(text, flush=True)
