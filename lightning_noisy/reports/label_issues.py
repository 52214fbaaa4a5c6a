"""The labels of a training set, ranked by how surely they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_noisy.errors import NoisyLabelError

SCORE_BINS = 50
WRONG, AMBIGUOUS, UNSEEN, LOST = "wrong", "ambiguous", "never seen", "class never predicted"


@dataclass(frozen=True)
class NoiseRate:
    """An estimated share of wrong labels, and how far it may be off either way; all in [0, 1]."""

    share: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.share <= self.high <= 1:
            raise NoisyLabelError(f"A noise rate needs 0 <= low <= share <= high <= 1, got {self}.")


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Every sample of a training set with its label, what the label should be, and how surely it is wrong.

    Raises:
        NoisyLabelError: Arrays of different lengths, classes that have no name, scores outside [0, 1].
    """

    samples: NDArray[np.str_]
    """Path or row of each sample in the user's own data, (N,)."""

    kind: Literal["path", "row"]
    """What ``samples`` are."""

    class_names: tuple[str, ...]
    """Of the K classes."""

    given: NDArray[np.int64]
    """The labels as they are, (N,), in 0 to K - 1."""

    suggested: NDArray[np.int64]
    """What they should be, (N,), in 0 to K - 1."""

    score: NDArray[np.float64]
    """How surely a label is wrong, (N,), in [0, 1]; 1 is surely."""

    cut: float
    """From this score on a label counts as wrong."""

    noise_rate: NoiseRate
    """The estimated share of wrong labels."""

    columns: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """What else is known of each sample, such as its training dynamics: name -> (N,)."""

    components: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """What stands behind the scores: component -> how many samples are expected in each of 50 equal bins, (50,)."""

    curves: NDArray[np.floating] | None = None
    """Confidence in the given label by epoch, (N, E), in [0, 1]; NaN where it was not seen."""

    truth: NDArray[np.int64] | None = None
    """The right labels, (N,), where somebody knows them; -1 where not."""

    probabilities: NDArray[np.float32] | None = None
    """What the network says of each class, (N, K), in [0, 1]."""

    positions: NDArray[np.int64] | None = None
    """Position of each sample in the training set, (N,), where some are left out."""

    marked: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Further flags: what a sample is -> which are, (N,)."""

    remarks: tuple[str, ...] = ()
    """What a reader has to know before anything else, a sentence each."""

    def __post_init__(self) -> None:
        rows, classes = len(self.samples), len(self.class_names)
        optional = {"curves": self.curves, "truth": self.truth, "probabilities": self.probabilities}
        arrays = {"given": self.given, "suggested": self.suggested, "score": self.score, **self.columns, **self.marked}
        for name, array in {**arrays, **optional}.items():
            if array is not None and len(array) != rows:
                raise NoisyLabelError(f"`{name}` has {len(array)} rows for {rows} samples.")
        for name, expected in self.components.items():
            if len(expected) != SCORE_BINS:
                raise NoisyLabelError(f"`{name}` has {len(expected)} values, not {SCORE_BINS}.")
        for name, labels in (("given", self.given), ("suggested", self.suggested)):
            if rows and not 0 <= labels.min() <= labels.max() < classes:
                raise NoisyLabelError(f"`{name}` has labels outside 0 to {classes - 1}, the classes that have a name.")
        if not ((self.score >= 0) & (self.score <= 1)).all():
            raise NoisyLabelError("`score` has values outside [0, 1].")

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Samples from the most to the least suspicious one, (N,); equal scores keep their order."""
        return np.argsort(-self.score, kind="stable")

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """Place of each sample in that order, (N,), from 1."""
        rank = np.empty(len(self), np.int64)
        rank[self.order] = np.arange(1, len(self) + 1)
        return rank

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """Labels that count as wrong, (N,): a score from ``cut`` on, and another class that fits better."""
        return np.asarray(self._beyond & (self.suggested != self.given))

    @cached_property
    def ambiguous(self) -> NDArray[np.bool_]:
        """Samples that nothing decides, (N,): a score from ``cut`` on, yet no class fits better than the given one."""
        return np.asarray(self._beyond & (self.suggested == self.given))

    @cached_property
    def flags(self) -> list[str]:
        """What each sample is, in words; empty where nothing is to say."""
        named = {WRONG: self.wrong, AMBIGUOUS: self.ambiguous, **self.marked}
        words = [""] * len(self)
        for name, which in named.items():
            for row in np.flatnonzero(which):
                words[row] = f"{words[row]}; {name}" if words[row] else name
        return words

    @cached_property
    def corrected(self) -> NDArray[np.int64]:
        """The labels with those that count as wrong replaced by the suggested ones, (N,)."""
        return np.where(self.wrong, self.suggested, self.given)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """How many labels that count as wrong go from one class (row: given) to another (column: suggested), (K, K)."""
        classes = len(self.class_names)
        pairs = self.given[self.wrong] * classes + self.suggested[self.wrong]
        return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    @property
    def _beyond(self) -> NDArray[np.bool_]:
        return np.greater_equal(self.score, self.cut)

    def position(self, row: int) -> int:
        """Where a sample stands in the training set."""
        return row if self.positions is None else int(self.positions[row])

    def name(self, label: int) -> str:
        """What a class is called."""
        return self.class_names[label]
