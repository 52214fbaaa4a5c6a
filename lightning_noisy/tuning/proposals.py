"""Which points a search has, and which is next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial
from typing_extensions import override

from lightning_noisy.tuning.space import Space, Values

SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}


def first_number(trial: FrozenTrial) -> int:
    """The number of the first trial of a trial's point."""
    return int(trial.user_attrs.get("first", trial.number))


class Proposals(Protocol):
    """Which points a search has."""

    def has(self, values: Values) -> bool:
        """Whether a point belongs to it."""

    def place(self, trial: FrozenTrial) -> int:
        """Where a trial stands in its order."""

    def next(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Trial | None:
        """Begin a trial of a new point. None where all have been begun.

        Args:
            study: Where.
            trials: Those there are, of this search.
        """


class Listing(Proposals):
    """Points that are listed, each once, in their order."""

    def __init__(self, points: Sequence[Values]) -> None:
        self.points = list(points)

    @override
    def has(self, values: Values) -> bool:
        """Whether it is listed."""
        return values in self.points

    @override
    def place(self, trial: FrozenTrial) -> int:
        """Its position in the list."""
        return self.points.index(trial.user_attrs["values"])

    @override
    def next(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Trial | None:
        """The first that no trial has."""
        begun = [trial.user_attrs["values"] for trial in trials]
        missing = next((values for values in self.points if values not in begun), None)
        if missing is None:
            return None
        study.enqueue_trial({}, user_attrs={"values": missing})
        return study.ask()


class Drawing(Proposals):
    """Points that a sampler draws, so many in all.

    The seed of a draw is made of the search's and of how many were drawn before: no two workers draw alike, nor does
    one that is started again, and a random search has the same points however many workers it has.

    Args:
        space: What is drawn from.
        sampler: One of :data:`SAMPLERS`.
        seed: Of the search.
        total: How many points it has.
    """

    def __init__(self, space: Space, sampler: str, seed: int, total: int) -> None:
        self.space, self.sampler, self.seed, self.total = space, sampler, seed, total

    @override
    def has(self, values: Values) -> bool:
        """All do."""
        return True

    @override
    def place(self, trial: FrozenTrial) -> int:
        """The number of the first trial of the point."""
        return first_number(trial)

    @override
    def next(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Trial | None:
        """Draw one."""
        drawn = sum("again" not in trial.user_attrs for trial in trials)
        if drawn >= self.total:
            return None
        (seed,) = np.random.SeedSequence([self.seed, drawn]).generate_state(1)
        study.sampler = SAMPLERS[self.sampler](seed=int(seed))
        trial = study.ask()
        trial.set_user_attr("values", {name: axis.draw(trial, name) for name, axis in self.space.items()})
        return trial
