"""What people use now to find labels that are wrong, on features: cleanlab, SimiFeat, SelfClean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from benchmarks.detection_methods import Found

_ROWS = 2000


def _cleanlab(model: Callable[[int], Any], x: NDArray[np.float32], given: NDArray[np.int64], seed: int) -> Found:
    """Confident learning on out-of-fold probabilities."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scaled = StandardScaler().fit_transform(x)
    p = cross_val_predict(model(seed), scaled, given, cv=folds, method="predict_proba")
    rank, filters = import_module("cleanlab.rank"), import_module("cleanlab.filter")
    scores = {
        name: 1 - rank.get_label_quality_scores(given, p, method=name)
        for name in ("self_confidence", "normalized_margin")
    }
    joint = import_module("cleanlab.count").estimate_joint(given, p)
    return Found(scores, "self_confidence", filters.find_label_issues(given, p), (1 - float(np.trace(joint)),))


def _simifeat(x: NDArray[np.float32], given: NDArray[np.int64], seed: int, neighbours: int = 10) -> Found:
    """The vote of the nearest neighbours by cosine, a sample's own label among them (Zhu et al., ICML 2022)."""
    unit = F.normalize(torch.from_numpy(x), dim=1)
    labels = F.one_hot(torch.from_numpy(given)).float()
    votes = torch.cat([_votes(part, unit, labels, neighbours) for part in unit.split(_ROWS)])
    agreement = F.cosine_similarity(votes, labels, dim=1)
    called = votes.argmax(dim=1).numpy() != given
    return Found({"vote": 1 - agreement.double().numpy()}, "vote", called, (float(called.mean()),))


def _votes(part: Tensor, unit: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    nearest = (part @ unit.T).topk(neighbours + 1, dim=1).indices
    return labels[nearest].mean(dim=1)


def _selfclean(x: NDArray[np.float32], given: NDArray[np.int64], seed: int) -> Found:
    r"""How far the nearest sample of the same label is, beside that of any other (Gröger et al., NeurIPS 2024).

    .. math:: m_=^2 / (m_=^2 + m_{\ne}^2)

    with cosine distances. It gives no cut and no noise rate; here a label is wrong where the other one is nearer.
    """
    unit, labels = F.normalize(torch.from_numpy(x), dim=1), torch.from_numpy(given)
    parts = [_nearest(rows, unit, labels) for rows in torch.arange(len(unit)).split(_ROWS)]
    same, other = (torch.cat(distances).double().square() for distances in zip(*parts, strict=True))
    ratio = (same / (same + other)).numpy()
    called = ratio > 0.5
    return Found({"distance ratio": ratio}, "distance ratio", called, (float(called.mean()),))


def _nearest(rows: Tensor, unit: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of these rows to the nearest other sample of their label, and to the nearest of another."""
    distance = 1 - unit[rows] @ unit.T
    distance[torch.arange(len(rows)), rows] = torch.inf
    same = labels[rows].unsqueeze(1) == labels
    return distance.masked_fill(~same, torch.inf).amin(dim=1), distance.masked_fill(same, torch.inf).amin(dim=1)


def _logistic(seed: int) -> Any:
    return LogisticRegression(max_iter=200, random_state=seed)


def _perceptron(seed: int) -> Any:
    return MLPClassifier((512,), batch_size=384, learning_rate_init=1e-3, max_iter=20, random_state=seed)


PEERS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64], int], Found]] = {
    "cleanlab, logistic regression": partial(_cleanlab, _logistic),
    "cleanlab, MLP": partial(_cleanlab, _perceptron),
    "SimiFeat's vote": _simifeat,
    "SelfClean's ratio": _selfclean,
}
"""By name: features (N, D), given labels (N,) and a seed to what they say of the labels."""
