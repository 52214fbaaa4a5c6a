"""GSS-SSL: pools, draws and targets against the equations, on linear networks in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy import NoisyLabelError
from lightning_noisy.data.batch import TrainingBatch
from tests.modules.recorded_steps import Array, Step, linear_strategy, record
from tests.modules.strategies import ViewsDataModule

EPOCHS = 4
ONE_HOT = np.eye(4)


def run(folder: Path, **options: Any) -> tuple[Any, list[Step]]:
    module = linear_strategy("GSSDivideMix", warmup_epochs=1, lam_labeled=(0.3, 0.1), **options)
    return module, record(folder, module, views=2, max_epochs=EPOCHS, num_samples=40)


def first_of(steps: list[Step], epoch: int) -> Step:
    return next(step for step in steps if step.epoch == epoch)


@pytest.mark.parametrize(
    ("initial_pool", "confidence", "whose"), [("one_hot", "given", "other"), ("zeros", "max", "own")]
)
def test_pools_grow_once_an_epoch_by_what_the_other_network_says(
    tmp_path: Path, initial_pool: str, confidence: str, whose: str
) -> None:
    _, steps = run(tmp_path, initial_pool=initial_pool, confidence=confidence, confidence_from=whose)
    data = ViewsDataModule(2, seed=0, val_fraction=0.0, num_samples=40)
    data.setup("test")
    images, given = torch.stack([data._scored[i][0] for i in range(40)]).double().numpy(), data.noisy_targets.numpy()
    pools = np.stack([ONE_HOT[given]] * 2, axis=1) * (initial_pool == "one_hot")
    assert "pool" not in first_of(steps, 0).stores
    for epoch in range(1, EPOCHS):
        step, progress = first_of(steps, epoch), epoch / EPOCHS
        for number in range(2):
            p = step.probabilities(images, f"networks.{1 - number}")
            believed = step.probabilities(images, f"networks.{number}") if whose == "own" else p
            sure = believed[np.arange(40), given] if confidence == "given" else believed.max(axis=1)
            labeled = step.stores["labeled"][:, number]
            first, second = np.where(labeled, 0.3, 0.2), np.where(labeled, 0.1, 0.5)
            pools[:, number] += ONE_HOT[given] * (sure * (1 - progress))[:, None]
            pools[:, number] += ONE_HOT[p.argmax(axis=1)] * (sure * first * progress)[:, None]
            pools[:, number] += (second * progress / 4)[:, None]
        np.testing.assert_allclose(step.stores["pool"], pools, rtol=1e-6)


def targets(module: Any, step: Step, turn: int, pool: Array) -> tuple[Array, Array]:
    """The drawn labels of a batch, and targets of its last three rows for a guess of (1/4, ...)."""
    module.section.stores["pool"].values.copy_(torch.as_tensor(pool))
    batch = TrainingBatch(None, torch.tensor(step.target), torch.tensor(step.index))
    guesses = torch.full((3, 4), 0.25)
    return module.label_rows(turn, batch).numpy(), module.unlabeled_targets(turn, batch, guesses).numpy()


@pytest.mark.parametrize("weight", [None, 0.0, 0.6, 1.0])
def test_drawn_labels_stand_for_given_ones(tmp_path: Path, weight: float | None) -> None:
    module, steps = run(tmp_path, unlabeled_weight_of_draw=weight)
    step = first_of(steps, EPOCHS - 1)
    module.section.stores["clean"].values.copy_(torch.tensor(step.stores["clean"]))
    pool = np.zeros((40, 2, 4))
    pool[:, 0, 3], pool[:, 1, 1] = 0.2, 7.0  # one direction for each network
    for turn, label in ((0, 3), (1, 1)):
        drawn, rest = targets(module, step, turn, pool)
        assert (drawn.argmax(axis=1) == label).all()
        share = step.stores["clean"][step.index, turn][5:] if weight is None else np.full(3, weight)
        expected = share[:, None] * ONE_HOT[label] + (1 - share[:, None]) / 4
        np.testing.assert_allclose(rest, expected, atol=1e-6)
    drawn, _ = targets(module, step, 0, 0 * pool)
    assert (drawn.argmax(axis=1) == step.target).all()  # nothing to draw from


def test_draws_follow_the_pools_and_are_redrawn(tmp_path: Path) -> None:
    module, _ = run(tmp_path)
    pool = np.broadcast_to([0.0, 1.0, 3.0, 0.0], (40, 2, 4))
    module.section.stores["pool"].values.copy_(torch.as_tensor(pool.copy()))
    index = torch.arange(40)
    batch = TrainingBatch(None, torch.zeros(40, dtype=torch.int64), index)
    rows = []
    for key in range(50):
        module.draw_keys = lambda stream, key=key: (stream, key)
        rows.append(module.label_rows(0, batch))
    assert torch.stack(rows).mean(dim=(0, 1)).tolist() == pytest.approx([0.0, 0.25, 0.75, 0.0], abs=0.04)
    assert len({tuple(draw.argmax(dim=1).tolist()) for draw in rows}) == 50


def test_labels_may_be_drawn_once_an_epoch_for_each_network(tmp_path: Path) -> None:
    module, _ = run(tmp_path, redraw="epoch")
    module.section.stores["pool"].values.fill_(1.0)
    batch = TrainingBatch(None, torch.zeros(40, dtype=torch.int64), torch.arange(40))
    rows = []
    for epoch, step in ((1, 0), (1, 7), (2, 0)):
        module.draw_keys = lambda stream, *keys: (stream, *keys, epoch, step)  # noqa: B023
        rows.append([module.label_rows(number, batch) for number in range(2)])
    assert rows[0][0].equal(rows[1][0])
    assert rows[0][1].equal(rows[1][1])
    assert not rows[0][0].equal(rows[0][1])
    assert not rows[0][0].equal(rows[2][0])


def test_samples_that_come_later_begin_with_their_label(tmp_path: Path) -> None:
    """Pools of the samples of an epoch grow, the others stay as they were."""
    _, steps = run(tmp_path, samples_per_epoch=16)
    before = None
    for epoch in range(1, EPOCHS):
        step = first_of(steps, epoch)
        part, pools = step.stores["part"], step.stores["pool"]
        assert part.sum() == 16
        assert not step.stores["labeled"][~part].any()
        if before is None:
            assert (pools[~part].max(axis=2) == 1).all()
            assert (pools[~part].sum(axis=2) == 1).all()
        else:
            np.testing.assert_array_equal(pools[~part], before[~part])
        assert (pools[part].sum(axis=2) > 1).all()
        before = pools


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam_unlabeled": (0.1, -1.0)}, r"^Expected argument `lam_unlabeled` to be two floats of at least 0, "),
        ({"initial_pool": "ones"}, r"^Expected argument `initial_pool` to be 'one_hot' or 'zeros', but got 'ones'\.$"),
        ({"unlabeled_weight_of_draw": 2.0}, r"^Expected argument `unlabeled_weight_of_draw` to be a float in \[0, 1\]"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NoisyLabelError, match=message):
        linear_strategy("GSSDivideMix", **options)
