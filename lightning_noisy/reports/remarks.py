"""What a reader of a report has to know before its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BY_CHANCE = 0.55  # of what a network that knows nothing would contradict
_LATE, _LEARNED_LATE = 4, 0.05  # times as late as half of the samples, and the share of labels that are
_POINTED_AT, _WORTH_SAYING = 0.5, 0.01
_ADVICE = "Train with a robust loss (early-learning regularization), or for fewer epochs."


def remarks_on(table: Mapping[str, NDArray[Any]], expected: float, wrong: NDArray[np.bool_]) -> list[str]:
    """Why a ranking may mean little, the first of these that holds; nothing where none does.

    - The last epoch's predictions contradict more than 55 % of the labels that they would contradict by chance, if each
      class were predicted as often: very many labels are wrong, or the network knows too little.
    - More than 5 % of the labels are predicted in the last epoch, and were for the first time more than four times as
      late as those of half of the samples: the network has learned them by heart. A hard sample that is learned late
      looks the same, whether its label is right or wrong.
    - Fewer than half of the labels that are expected to be wrong count as wrong, where that is 1 % at least: the
      network believes nearly every label a little too much to tell.

    Args:
        table: Figures of each seen sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        expected: The estimated noise rate.
        wrong: Labels that count as wrong, (N,).
    """
    if len(wrong) == 0:
        return []
    at_last = float((table["last_prediction"] != table["label"]).mean())
    lines = (
        _knows_little(at_last, _by_chance(table["last_prediction"], table["label"])),
        _by_heart(table),
        _cannot_point(expected, float(wrong.mean())),
    )
    return [line for line in lines if line is not None][:1]


def _by_chance(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of labels that is contradicted when predictions are dealt out again at random."""
    classes = int(max(predicted.max(), labels.max())) + 1
    often = [np.bincount(column.astype(np.int64), minlength=classes) / len(column) for column in (predicted, labels)]
    return 1 - float(often[0] @ often[1])


def _knows_little(at_last: float, by_chance: float) -> str | None:
    if at_last <= _BY_CHANCE * by_chance:
        return None
    return (
        f"The network contradicts {at_last:.0%} of the labels in the last epoch, and would contradict {by_chance:.0%} "
        "if it knew nothing: either very many are wrong, or it has learned too little to correct any. Train longer, or "
        "start from a pretrained network."
    )


def _by_heart(table: Mapping[str, NDArray[Any]]) -> str | None:
    learned = table["first_learned"][table["last_prediction"] == table["label"]]
    half = float(np.median(learned)) + 1 if len(learned) else 0.0
    share = float((learned + 1 > _LATE * half).sum()) / len(table["label"])
    if share <= _LEARNED_LATE:
        return None
    return (
        f"The network learned {share:.0%} of the labels after epoch {_LATE * half:.0f}, half of all by epoch "
        f"{half:.0f}: it has probably learned wrong labels by heart, and too few count as wrong here. {_ADVICE}"
    )


def _cannot_point(expected: float, called: float) -> str | None:
    if expected < _WORTH_SAYING or called >= _POINTED_AT * expected:
        return None
    return (
        f"{expected:.1%} of the labels are expected to be wrong, but only {called:.1%} can be pointed at: trust the "
        f"ranking more than what counts as wrong. {_ADVICE}"
    )
