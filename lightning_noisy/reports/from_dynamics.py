"""Ranked labels from how their samples were learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_noisy.functional.label_posterior import LabelPosterior, label_posterior
from lightning_noisy.functional.mixture import beta_mixture
from lightning_noisy.reports.label_issues import SCORE_BINS, UNSEEN, LabelIssues, NoiseRate
from lightning_noisy.reports.remarks import remarks_on, signs_of

CUT = 0.5
_POINTS = 16  # of each bin at which a density is looked up
_COLUMNS = (
    "confidence", "trend", "variability", "final_confidence", "margin", "forgotten", "last_forgotten", "first_learned",
    "last_prediction", "modal_share", "visits",
)  # fmt: skip


def issues_from_dynamics(
    table: Mapping[str, NDArray[Any]],
    beliefs: NDArray[np.float32],
    samples: NDArray[np.str_],
    kind: Literal["path", "row"],
    class_names: Sequence[str],
    truth: NDArray[np.int64] | None = None,
    remarks: Sequence[str] = (),
    curves: NDArray[np.floating] | None = None,
) -> LabelIssues:
    r"""Rank labels by how probable it is that they are wrong.

    The score of a label is its posterior probability to be wrong, suggested is the most probable class
    (:func:`~lightning_noisy.functional.label_posterior.label_posterior` of the geometric mean over epochs of the
    network's probabilities). A label counts as wrong where another class is suggested and the score is at least 0.5.
    The mean score is the estimated noise rate; its interval reaches from the labels that are wrong with a probability
    above 0.9 to those with one above 0.1. It is a wide one, and no confidence interval: whether the network itself is
    right cannot be told from within. Samples that were never seen have a score of 0, are flagged, and count for no
    share.

    Args:
        table: Figures of each sample, as :meth:`TrainingDynamics.table` gives them, (N,) each.
        beliefs: Mean log-probabilities, as :meth:`TrainingDynamics.beliefs` gives them, (N, K) or wider: outputs beyond
            the classes stand for none.
        samples: Path or row of each sample, (N,).
        kind: Which of them.
        class_names: Names of the K classes.
        truth: Right labels, (N,), -1 where nobody knows one.
        remarks: What a reader has to know first.
        curves: Confidence by epoch, (N, E).
    """
    seen = table["visits"] > 0
    given = np.maximum(table["label"], 0).astype(np.int64)
    known = torch.from_numpy(beliefs[seen, : len(class_names)])
    found = label_posterior(known, torch.from_numpy(given[seen]))
    suggested, score = given.copy(), np.zeros(len(given))
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
        columns={name: table[name] for name in _COLUMNS},
        components=_components(score[seen]),
        curves=curves,
        truth=truth,
        marked={UNSEEN: ~seen} if not seen.all() else {},
        remarks=tuple(remarks),
    )
    signs = signs_of(table, found.noise_rate, issues.wrong)
    return issues if signs is None else replace(issues, remarks=(*issues.remarks, *remarks_on(signs)))


def _noise_rate(found: LabelPosterior) -> NoiseRate:
    if len(found.wrong) == 0:
        return NoiseRate(0.0, 0.0, 1.0)
    share, (sure, possible) = found.noise_rate, ((found.wrong > limit).double().mean() for limit in (0.9, 0.1))
    return NoiseRate(share, min(share, float(sure)), max(share, float(possible)))


def _components(score: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """How many scores a beta mixture expects in each bin; nothing where it finds one component only."""
    if len(score) == 0:
        return {}
    fit = beta_mixture(torch.from_numpy(score))
    low, high = fit.bounds
    if not high > low or float(fit.weights[1]) == 0:
        return {}
    points = (np.arange(SCORE_BINS * _POINTS) + 0.5) / SCORE_BINS / _POINTS
    scaled = (points - low) / (high - low)
    inside = (scaled > 0) & (scaled < 1)
    densities = np.zeros((2, len(points)))
    densities[:, inside] = fit.densities(torch.from_numpy(scaled[inside])).numpy()
    counts = densities.reshape(2, SCORE_BINS, _POINTS).mean(axis=2) * len(score) * 0.9 / (high - low) / SCORE_BINS
    return dict(zip(("taken for right", "taken for wrong"), counts, strict=True))
