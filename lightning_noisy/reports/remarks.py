"""What a reader of a report has to know before its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_SURE = 0.5  # of the likeliest class, over epochs
_CAME_TO_AGREE = 0.05  # of all labels
_POINTED_AT, _WORTH_SAYING = 0.5, 0.01
_ADVICE = "Train with a robust loss (early-learning regularization), or for fewer epochs."


def remarks_on(
    table: Mapping[str, NDArray[Any]], beliefs: Tensor, expected: float, wrong: NDArray[np.bool_]
) -> list[str]:
    """Why a ranking may mean little, the first of these that holds; nothing where none does.

    - The likeliest class of the median sample has a mean probability below a half: the network knows too little.
    - On average over the epochs another class was ahead of the label (area under the margin below 0) for 5 % of the
      samples more than in the last epoch: the network has come to believe labels that it had contradicted.
    - Fewer than half of the labels that are expected to be wrong count as wrong, where that is 1 % at least: the
      network believes nearly every label a little too much to tell.

    Args:
        table: Figures of each seen sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        beliefs: Mean log-probabilities, (N, K).
        expected: The estimated noise rate.
        wrong: Labels that count as wrong, (N,).
    """
    if len(beliefs) == 0:
        return []
    return _knows_little(beliefs) or _by_heart(table) or _cannot_point(expected, float(wrong.mean()))


def _knows_little(beliefs: Tensor) -> list[str]:
    middle = float(beliefs.softmax(dim=1).amax(dim=1).median())
    if middle >= _SURE:
        return []
    return [
        f"The network is unsure of most samples ({middle:.0%} for the class that it holds likeliest, in the median): "
        "it contradicts labels at random. Train longer, or with a higher learning rate."
    ]


def _by_heart(table: Mapping[str, NDArray[Any]]) -> list[str]:
    contradicted = float((table["margin"] < 0).mean())
    at_last = float((table["last_prediction"] != table["label"]).mean())
    if contradicted - at_last < _CAME_TO_AGREE:
        return []
    return [
        f"The network contradicted {contradicted:.0%} of the labels on average over the epochs, and {at_last:.0%} in "
        f"the last one: it has probably learned wrong labels by heart, and too few count as wrong here. {_ADVICE}"
    ]


def _cannot_point(expected: float, called: float) -> list[str]:
    if expected < _WORTH_SAYING or called >= _POINTED_AT * expected:
        return []
    return [
        f"{expected:.1%} of the labels are expected to be wrong, but only {called:.1%} can be pointed at: trust the "
        f"ranking more than what counts as wrong. {_ADVICE}"
    ]
