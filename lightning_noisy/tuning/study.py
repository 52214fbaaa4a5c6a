"""Trials that several processes share, on one machine or many.

Optuna's storage on a journal has no heartbeats, and its grid sampler may give a point to two workers. So one worker at
a time holds the lock: it marks dead trials as failed, then claims the next one. A running trial is dead when its
``beat`` has not changed for :data:`GRACE` seconds, measured on the clock of the worker that looks; clocks of machines
are not compared. It has failed for all workers: the journal takes no result for it, should its process come back. A
trial of the same values is begun in its place.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_noisy.reports.search import Point, State
from lightning_noisy.tuning.journal import Journal
from lightning_noisy.tuning.proposals import Proposals, first_number

BEAT = 20.0
"""Seconds between two signs of life of a running trial."""

GRACE = 120.0
"""Seconds without one after which it is dead."""

MOST_DEATHS = 3
"""How often a point is begun that its process does not survive."""

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


class SharedStudy:
    """Trials of a search, one at a time for each process that takes part.

    Args:
        journal: Where they are kept.
        name: Of the study in it.
        proposals: Its points.
        pruner: One of :data:`PRUNERS`.
        most_deaths: How often a point is begun that its process does not survive; None has no bound.
    """

    def __init__(
        self,
        journal: Journal,
        name: str,
        proposals: Proposals,
        pruner: str = "none",
        most_deaths: int | None = MOST_DEATHS,
    ) -> None:
        self.name = name
        self._journal, self._proposals, self._most_deaths = journal, proposals, most_deaths
        self._study = journal.study(name, pruner)
        self._seen: dict[int, tuple[int, float]] = {}
        self._heard: set[int] = set()

    def claim(self) -> Trial | None:
        """Begin a trial, of a point that a dead one has left or of a new one. None where nothing is left to begin."""
        with self._journal.turn():
            self._bury_the_dead()
            trial = self._again() or self._proposals.next(self._study, self._trials())
            if trial is not None:
                trial.set_user_attr("worker", f"{socket.gethostname()}, process {os.getpid()}")
        return trial

    @contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Give signs of life of a trial; what is raised inside gives it back."""
        over = Event()

        def beat() -> None:
            count = 0
            while not over.wait(BEAT):
                count += 1
                try:
                    trial.set_user_attr("beat", count)
                except UpdateFinishedTrialError:
                    return
                except (OSError, RuntimeError):  # the file cannot be written now: the next beat tells the same
                    continue

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._tell(trial, TrialState.FAIL, None, {"returned": True})
            raise
        finally:
            over.set()
            thread.join()

    def report(self, trial: Trial, epoch: int, score: float) -> bool:
        """Note the score of an epoch.

        Returns:
            Whether the trial should stop: the pruner says so, or another process has taken it up.
        """
        try:
            trial.report(score, epoch)
        except UpdateFinishedTrialError:
            return True
        return trial.should_prune()

    def finish(self, trial: Trial, score: float | None, **notes: Any) -> bool:
        """Note how a trial has ended.

        Args:
            trial: The trial.
            score: Its last one; None where it was pruned.
            notes: Attributes for it.

        Returns:
            Whether it counts; otherwise another process has taken it up.
        """
        state = TrialState.PRUNED if score is None else TrialState.COMPLETE
        return self._tell(trial, state, score, notes)

    def fail(self, trial: Trial, error: str) -> bool:
        """As :meth:`finish`, for one that ends with an error and is not begun again."""
        return self._tell(trial, TrialState.FAIL, None, {"error": error})

    def running(self) -> list[str]:
        """Who runs trials of other processes."""
        trials = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        return sorted(str(trial.user_attrs.get("worker")) for trial in trials)

    def others_live(self) -> bool:
        """Whether each of these has given a sign of life since this process looked first."""
        return self._heard >= {trial.number for trial in self._trials() if trial.state == TrialState.RUNNING}

    def points(self) -> list[Point]:
        """The points that have been begun, each by its last trial, in the order of the search."""
        last = {first_number(trial): trial for trial in self._trials()}
        return [_point(trial) for trial in sorted(last.values(), key=self._proposals.place)]

    def _trials(self) -> list[FrozenTrial]:
        """Those of this search."""
        found = [trial for trial in self._study.get_trials(deepcopy=False) if "values" in trial.user_attrs]
        return [trial for trial in found if self._proposals.has(trial.user_attrs["values"])]

    def _bury_the_dead(self) -> None:
        now = time.monotonic()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            beat = trial.user_attrs.get("beat", 0)
            seen, since = self._seen.setdefault(trial.number, (beat, now))
            if seen != beat:
                self._seen[trial.number] = (beat, now)
                self._heard.add(trial.number)
            elif now - since > GRACE:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _again(self) -> Trial | None:
        """A trial of the first point whose trial has failed and may be begun again."""
        trials = self._trials()
        begun = {trial.user_attrs.get("again") for trial in trials}
        for trial in trials:
            notes = trial.user_attrs
            failed = trial.state == TrialState.FAIL and "error" not in notes and trial.number not in begun
            if failed and (self._most_deaths is None or _deaths(trial) < self._most_deaths):
                kept = {"values": notes["values"], "first": first_number(trial), "deaths": _deaths(trial)}
                options: dict[str, Any] = {"params": trial.params, "distributions": trial.distributions}
                again = optuna.create_trial(
                    state=TrialState.WAITING, user_attrs={**kept, "again": trial.number}, **options
                )
                self._study.add_trial(again)
                return self._study.ask()
        return None

    def _tell(self, trial: Trial, state: TrialState, score: float | None, notes: dict[str, Any]) -> bool:
        with self._journal.turn():
            if self._study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING:
                return False
            for name, value in notes.items():
                trial.set_user_attr(name, value)
            self._study.tell(trial, score, state)
        return True


def _deaths(trial: FrozenTrial) -> int:
    """How many processes have died with its point."""
    died = trial.state == TrialState.FAIL and not {"returned", "error"} & set(trial.user_attrs)
    return int(trial.user_attrs.get("deaths", 0)) + died


def _point(trial: FrozenTrial) -> Point:
    notes, state = trial.user_attrs, _STATES[trial.state]
    unsaid = {"failed": "interrupted" if "returned" in notes else "its process died"}.get(state)
    error = notes.get("error", unsaid)
    return Point(notes["values"], state, trial.value, notes.get("folder"), dict(trial.intermediate_values), error)
