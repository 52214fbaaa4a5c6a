"""What a reader of a report has to know before its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BY_CHANCE = 0.55  # of what a network that knows nothing would contradict
_LATE, _LEARNED_LATE, _UNSEEN_LATE = 4, 0.05, 0.02  # times as late as half of the samples, and shares of labels
_POINTED_AT, _WORTH_SAYING = 0.5, 0.01
_ADVICE = "Train with a robust loss (early-learning regularization), or for fewer epochs."


@dataclass(frozen=True)
class Signs:
    """What may speak against a run, in numbers."""

    samples: int
    """How many were seen."""

    contradicted: float
    """Share of the labels that the last epoch's predictions contradict."""

    by_chance: float
    """Share that they would contradict if they were dealt out again at random."""

    half_learned: float
    """Epochs until half of the labels that are predicted in the last epoch were predicted for the first time."""

    learned_late: float
    """Share of the labels that are predicted in the last epoch and took more than four times as long."""

    expected: float
    """The estimated noise rate."""

    pointed_at: float
    """Share of the labels that count as wrong."""


def signs_of(table: Mapping[str, NDArray[Any]], expected: float, wrong: NDArray[np.bool_]) -> Signs | None:
    """Measure what :func:`remarks_on` judges by; None where no sample was ever seen.

    Args:
        table: Figures of each sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        expected: The estimated noise rate.
        wrong: Labels that count as wrong, (N,).
    """
    seen = table["visits"] > 0
    if not seen.any():
        return None
    label, last, first = (table[name][seen] for name in ("label", "last_prediction", "first_learned"))
    learned = first[last == label] + 1
    half = float(np.median(learned)) if len(learned) else 0.0
    late = float((learned > _LATE * half).sum()) / len(label)
    contradicted, pointed_at = float((last != label).mean()), float(wrong[seen].mean())
    return Signs(len(label), contradicted, _by_chance(last, label), half, late, expected, pointed_at)


def remarks_on(signs: Signs) -> list[str]:
    """Why a ranking may mean little, the first of these that holds; nothing where none does.

    - The last epoch's predictions contradict more than 55 % of the labels that they would contradict by chance, if each
      class were predicted as often: very many labels are wrong, or the network knows too little.
    - More than 5 % of the labels (2 %, where fewer than half as many count as wrong) are predicted in the last epoch,
      and were for the first time more than four times as late as those of half of the samples: the network has learned
      them by heart. A hard sample that is learned late looks the same, whether its label is right or wrong.
    - Fewer than half of the labels that are expected to be wrong count as wrong, where that is 1 % at least, and two of
      them: the network believes nearly every label a little too much to tell.
    """
    lines = (_knows_little(signs), _by_heart(signs), _cannot_point(signs))
    return [line for line in lines if line is not None][:1]


def _by_chance(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of labels that is contradicted when predictions are dealt out again at random."""
    classes = int(max(predicted.max(), labels.max())) + 1
    often = [np.bincount(column.astype(np.int64), minlength=classes) / len(column) for column in (predicted, labels)]
    return 1 - float(often[0] @ often[1])


def _knows_little(signs: Signs) -> str | None:
    if signs.contradicted <= _BY_CHANCE * signs.by_chance:
        return None
    return (
        f"The network contradicts {signs.contradicted:.0%} of the labels in the last epoch, and would contradict "
        f"{signs.by_chance:.0%} if it knew nothing: either very many are wrong, or it has learned too little to "
        "correct any. Train longer, or start from a pretrained network."
    )


def _by_heart(signs: Signs) -> str | None:
    few = _UNSEEN_LATE if signs.learned_late > 2 * signs.pointed_at else _LEARNED_LATE
    if signs.learned_late <= few:
        return None
    return (
        f"The network learned {signs.learned_late:.0%} of the labels after epoch {_LATE * signs.half_learned:.0f}, "
        f"half of all by epoch {signs.half_learned:.0f}: it has probably learned wrong labels by heart, and too few "
        f"count as wrong here. {_ADVICE}"
    )


def _cannot_point(signs: Signs) -> str | None:
    if signs.expected < max(_WORTH_SAYING, 2 / signs.samples) or signs.pointed_at >= _POINTED_AT * signs.expected:
        return None
    return (
        f"{signs.expected:.1%} of the labels are expected to be wrong, but only {signs.pointed_at:.1%} can be pointed "
        f"at: trust the ranking more than what counts as wrong. {_ADVICE}"
    )
