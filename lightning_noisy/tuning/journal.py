"""Optuna's journal: a file that several processes append to, on one machine or many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from lightning_noisy.errors import NoisyLabelError

PRUNERS = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


class Journal:
    """A file of trials, and the turn of those who write it.

    Args:
        path: The file.

    Raises:
        NoisyLabelError: It is something else.
    """

    def __init__(self, path: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._turn = JournalFileOpenLock(f"{path}.turn")
        lock = JournalFileOpenLock(str(path))
        try:
            self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))
            _check_last_line(path, lock)
        except (ValueError, KeyError, TypeError) as error:
            raise NoisyLabelError(
                f"'{path}' is not the journal of a search, or its last line is torn: give another `--output`."
            ) from error

    @contextmanager
    def turn(self) -> Iterator[None]:
        """What is done inside, no other process does at the same time."""
        self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    def begin(self, name: str, asked: dict[str, Any]) -> None:
        """Hold a study to what it was asked for. Of one in which every trial has failed nothing is kept.

        Args:
            name: Of the study.
            asked: Plain values.

        Raises:
            NoisyLabelError: It was asked for something else.
        """
        with self.turn():
            study = self.study(name)
            before = study.user_attrs.get("asked")
            if before not in (None, asked):
                changed = ", ".join(key for key in asked if before.get(key) != asked[key])
                if any(trial.state != TrialState.FAIL for trial in study.get_trials(deepcopy=False)):
                    raise NoisyLabelError(
                        f"'{self._path}' does not hold the trials of this search (other {changed}): give another "
                        "`--output`, or remove the folder."
                    )
                optuna.delete_study(study_name=name, storage=self.storage)
                study = self.study(name)
            study.set_user_attr("asked", asked)

    def is_idle(self) -> bool:
        """Whether no trial runs or has come to anything, and no run has left a file beside the journal."""
        trials = [trial for name in optuna.get_all_study_names(self.storage) for trial in self.study(name).trials]
        nothing = all(trial.state == TrialState.FAIL and "error" not in trial.user_attrs for trial in trials)
        return nothing and all(file.name.startswith(self._path.name) for file in self._path.parent.iterdir())

    def study(self, name: str, pruner: str = "none") -> optuna.Study:
        """A study of the file, made if it is missing."""
        options: dict[str, Any] = {"study_name": name, "storage": self.storage, "pruner": PRUNERS[pruner]()}
        if name in optuna.get_all_study_names(self.storage):
            return optuna.load_study(**options)
        return optuna.create_study(direction="maximize", load_if_exists=True, **options)


def _check_last_line(path: Path, lock: JournalFileOpenLock) -> None:
    """Raise a ValueError for a line that Optuna overlooks as long as it is the last, and stumbles over from then on."""
    lock.acquire()
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    finally:
        lock.release()
    if lines and not lines[-1].endswith(b"\n"):
        raise ValueError("no end of line")
    if lines:
        json.loads(lines[-1])
