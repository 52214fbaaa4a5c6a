"""UNICON's division and loss against numpy, on linear networks in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy import NoisyLabelError
from tests.modules.recorded_steps import Array, Step, linear_strategy, record
from tests.modules.strategies import ViewsDataModule
from tests.modules.test_divide_mix import ONE_HOT, mixing, sharpened, turns_of


def divergences(p: Array, given: Array, base: float) -> Array:
    middle = (p + ONE_HOT[given]) / 2
    own = (p * np.log(p / middle)).sum(axis=1)
    label = -np.log(middle[np.arange(len(given)), given])
    found: Array = (own + label) / 2 / math.log(base)
    return found


@pytest.mark.parametrize(
    ("base", "high", "options"),
    [(2.0, 0.7, {}), (math.e, 0.7, {"base": math.e}), (2.0, 0.2, {"high_divergence": 0.2, "tau": 2.0})],
)
def test_each_class_gives_as_many_of_its_nearest_samples(
    tmp_path: Path, base: float, high: float, options: dict[str, Any]
) -> None:
    steps = record(tmp_path, linear_strategy("UNICON", warmup_epochs=1, **options), 4, 2, num_samples=60)
    step = next(step for step in steps if step.epoch == 1)
    data = ViewsDataModule(4, seed=0, val_fraction=0.0, num_samples=60)
    data.setup("test")
    images, given = torch.stack([data._scored[i][0] for i in range(60)]).double().numpy(), data.noisy_targets.numpy()
    p = (step.probabilities(images, "networks.0") + step.probabilities(images, "networks.1")) / 2
    d = divergences(p, given, base)
    np.testing.assert_allclose(step.stores["divergence"], d, rtol=1e-6)
    threshold = d.mean()
    if threshold > high:
        threshold -= (threshold - d.min()) / options["tau"]
    quota = int((d < threshold).sum()) // 4
    assert quota > 1
    labeled = np.zeros(60, bool)
    for label in range(4):
        members = np.flatnonzero(given == label)
        labeled[members[d[members].argsort()[:quota]]] = True
    assert (step.stores["labeled"] == labeled[:, None]).all()
    np.testing.assert_allclose(step.stores["clean"], np.where(d < 0.5, 1, 1 - d)[:, None] * [[1, 1]], rtol=1e-6)
    ratio = 2 * labeled.mean()
    for _, seen in turns_of(steps, 1):
        assert labeled[seen.index].sum() == round(8 * ratio / (1 + ratio))


def test_the_loss_is_of_strong_views_with_targets_of_weak_ones(tmp_path: Path) -> None:
    options = {"lambda_u": 20.0, "rampup_epochs": 0, "contrast_weight": 0.5, "contrast_temperature": 0.4}
    module = linear_strategy("UNICON", warmup_epochs=1, projection_width=3, **options)
    for turn, step in turns_of(record(tmp_path, module, 4, 2), 1):
        assert step.loss == pytest.approx(reference(step, turn), rel=1e-8)


def reference(step: Step, turn: int) -> float:
    clean, labeled = step.stores["clean"][step.index, turn], step.stores["labeled"][step.index, turn]
    weak, strong = step.views[:2], step.views[2:]
    own = np.mean([step.probabilities(view, f"networks.{turn}") for view in weak], axis=0)
    other = np.mean([step.probabilities(view, f"networks.{1 - turn}") for view in weak], axis=0)
    refined = sharpened(clean[:, None] * ONE_HOT[step.target] + (1 - clean[:, None]) * own)[labeled]
    guessed = sharpened((own + other) / 2)[~labeled]
    inputs = np.concatenate([view[labeled] for view in strong] + [view[~labeled] for view in strong])
    targets = np.concatenate([refined, refined, guessed, guessed])
    share, partners = mixing(step, len(inputs), 4.0)
    inputs, targets = (share * rows + (1 - share) * rows[partners] for rows in (inputs, targets))
    p, first = step.probabilities(inputs, f"networks.{turn}"), 2 * labeled.sum()
    supervised = -(targets[:first] * np.log(p[:first])).sum(axis=1).mean()
    unsupervised = ((p[first:] - targets[first:]) ** 2).mean()
    return float(supervised + 20 * unsupervised + (np.log(1 / 4 / p.mean(axis=0)) / 4).sum() + contrast(step, turn))


def contrast(step: Step, turn: int) -> float:
    """By a projection with batch normalization."""
    rest = ~step.stores["labeled"][step.index, turn]
    features = np.concatenate([view[rest].reshape(rest.sum(), -1) for view in step.views[2:]])
    part = {name.removeprefix(f"projections.{turn}."): value for name, value in step.weights.items()}
    projected = features @ part["0.weight"].T + part["0.bias"]
    projected = (projected - projected.mean(axis=0)) / np.sqrt(projected.var(axis=0) + 1e-5)
    unit = projected * part["1.weight"] + part["1.bias"]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    powers = np.exp(unit @ unit.T / 0.4)
    np.fill_diagonal(powers, 0)
    partner = np.roll(np.arange(len(unit)), rest.sum())
    return float(-0.5 * np.log(powers[np.arange(len(unit)), partner] / powers.sum(axis=1)).mean())


def test_four_views_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(NoisyLabelError, match=r"^UNICON trains on 4 views of each image, but the batch has 2: give"):
        record(tmp_path, linear_strategy("UNICON", warmup_epochs=1), 2, 2)


def test_refused_arguments() -> None:
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `base` to be a float > 1, but got 1\.0\.$"):
        linear_strategy("UNICON", base=1.0)
