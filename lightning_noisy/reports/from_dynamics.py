"""Ranked labels from how their samples were learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_noisy.functional.label_posterior import LabelPosterior, label_posterior
from lightning_noisy.reports.label_issues import LOST, SCORE_BINS, UNSEEN, LabelIssues, NoiseRate
from lightning_noisy.reports.remarks import remarks_on, signs_of

CUT = 0.5
_NOBODY = -1e4  # logit of a class without a label
_COLUMNS = (
    "confidence", "trend", "variability", "final_confidence", "margin", "forgotten", "last_forgotten", "first_learned",
    "modal_share", "visits",
)  # fmt: skip


def issues_from_dynamics(
    table: Mapping[str, NDArray[Any]],
    beliefs: NDArray[np.float32],
    samples: NDArray[np.str_],
    kind: Literal["path", "row"],
    class_names: Sequence[str],
    labels: NDArray[np.integer] | None = None,
    truth: NDArray[np.int64] | None = None,
    remarks: Sequence[str] = (),
    curves: NDArray[np.floating] | None = None,
    lost: Sequence[int] = (),
) -> LabelIssues:
    r"""Rank labels by how probable it is that they are wrong.

    The score of a label is its posterior probability to be wrong, suggested is the most probable class
    (:func:`~lightning_noisy.functional.label_posterior.label_posterior` of the geometric mean over epochs of the
    network's probabilities; a class without labels is never suggested). A label counts as wrong where another class is
    suggested and the score is at least 0.5. The mean score is the estimated noise rate; its interval reaches from the
    labels that are wrong with a probability above 0.9 to those with one above 0.1. It is a wide one, and no confidence
    interval: whether the network itself is right cannot be told from within. Samples that were never seen have a score
    of 0, are flagged, and count for no share; those whose label nobody knows either are left out, which is said.

    Args:
        table: Figures of each sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        beliefs: Mean log-probabilities, as :meth:`TrainingDynamics.beliefs` gives them, (N, K) or wider: outputs beyond
            the classes stand for none.
        samples: Path or row of each sample, (N,).
        kind: Which of them.
        class_names: Names of the K classes.
        labels: Given labels, (N,), of those that were never seen as well; None: nobody tells them.
        truth: Right labels, (N,), -1 where nobody knows one.
        remarks: What a reader has to know first.
        curves: Confidence by epoch, (N, E).
        lost: Classes that are (almost) never predicted; their labels are flagged.
    """
    given = table["label"] if labels is None else np.where(table["label"] < 0, labels, table["label"])
    told = np.flatnonzero(given >= 0)
    if left_out := len(given) - len(told):
        remarks = (*remarks, f"{left_out} samples were never seen, and nobody tells their labels: they are left out.")
        table, given = {name: column[told] for name, column in table.items()}, given[told]
        beliefs, samples = beliefs[told], samples[told]
        truth = None if truth is None else truth[told]
        curves = None if curves is None else curves[told]
    given = given.astype(np.int64)
    seen = table["visits"] > 0
    known = _of_classes(beliefs[:, : len(class_names)], given)
    found = label_posterior(known if seen.all() else known[torch.from_numpy(seen)], torch.from_numpy(given[seen]))
    suggested, score = given.copy(), np.zeros(len(given))
    marks = {UNSEEN: ~seen, LOST: np.isin(given, lost)}
    suggested[seen], score[seen] = found.best.numpy(), found.wrong.numpy()
    issues = LabelIssues(
        samples=samples,
        kind=kind,
        class_names=tuple(class_names),
        given=given,
        suggested=suggested,
        score=score,
        cut=CUT,
        noise_rate=_noise_rate(found),
        columns={**{name: table[name] for name in _COLUMNS}, **_predictions(table, class_names)},
        components=_components(score[seen]),
        curves=curves,
        truth=truth,
        probabilities=known.softmax(dim=1).numpy(),
        positions=told if left_out else None,
        marked={name: which for name, which in marks.items() if which.any()},
        remarks=tuple(remarks),
    )
    signs = signs_of(table, found.noise_rate, issues.wrong)
    return issues if signs is None else replace(issues, remarks=(*issues.remarks, *remarks_on(signs)))


def _of_classes(beliefs: NDArray[np.float32], given: NDArray[np.int64]) -> Tensor:
    """Beliefs in classes that have labels; in others, of which there may be many where labels have gaps, hardly any."""
    empty = np.bincount(given, minlength=beliefs.shape[1]) == 0
    known = torch.from_numpy(beliefs)
    return known.masked_fill(torch.from_numpy(empty), _NOBODY) if empty.any() else known


def _predictions(table: Mapping[str, NDArray[Any]], class_names: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """What was predicted last, and most often, by name; nothing of a sample that was never seen."""
    found = {name: table[name].astype(np.int64) for name in ("last_prediction", "modal_prediction")}
    outputs = max(len(class_names), *(int(of.max(initial=-1)) + 1 for of in found.values()))
    further = [f"output {number}" for number in range(len(class_names), outputs)]
    names = np.array([*class_names, *further, ""])
    return {name: names[of] for name, of in found.items()}


def _noise_rate(found: LabelPosterior) -> NoiseRate:
    if len(found.wrong) == 0:
        return NoiseRate(0.0, 0.0, 1.0)
    share, (sure, possible) = found.noise_rate, ((found.wrong > limit).double().mean() for limit in (0.9, 0.1))
    return NoiseRate(share, min(share, float(sure)), max(share, float(possible)))


def _components(score: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """How many right and how many wrong labels the scores expect in each bin; nothing without scores."""
    if len(score) == 0:
        return {}
    bins = np.minimum((score * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    shares = {"taken for right": 1 - score, "taken for wrong": score}
    return {name: np.bincount(bins, share, SCORE_BINS).astype(np.float64) for name, share in shares.items()}
