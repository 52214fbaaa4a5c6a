"""ELR+ step by step in numpy, on linear networks in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional.random import hash_bits, hash_seed
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization
from lightning_noisy.modules import elr_plus
from tests.modules.recorded_steps import Array, Step, ViewsDataModule, linear_strategy, make_trainer, record
from tests.modules.test_divide_mix import ONE_HOT, turns_of

MOMENTUM, LAM, ALPHA = 0.6, 2.0, 0.8
OPTIONS: dict[str, Any] = {"momentum": MOMENTUM, "lam": LAM, "alpha": ALPHA}


def rampup(step: int, length: int) -> float:
    return float(np.exp(-5 * (1 - min(1, step / length)) ** 2)) if length else 1.0


def teacher(step: Step, number: int, images: Array) -> Array:
    return step.probabilities(images, f"teachers.{number}.module")


def remembered(step: Step, turn: int, predicted: Array) -> Array:
    before = step.stores.get(f"history_{turn}", np.zeros((step.index.max() + 1, 4)))[step.index]
    past: Array = MOMENTUM * before + (1 - MOMENTUM) * predicted
    return past


def reference(step: Step, turn: int, strength: float, weigh: bool) -> float:
    keys = elr_plus._MIX_STREAM, 0, step.epoch, step.batch
    drawn = np.random.default_rng(hash_seed(*keys)).beta(ALPHA, ALPHA)
    share, partners = max(drawn, 1 - drawn), hash_bits(*keys, torch.tensor(step.index)).argsort(stable=True).numpy()
    past = remembered(step, turn, teacher(step, 1 - turn, step.views[0]))
    images, target, past = (
        share * rows + (1 - share) * rows[partners] for rows in (step.views[0], ONE_HOT[step.target], past)
    )
    if weigh:
        target = target * past / (target * past).sum(axis=1, keepdims=True)
    p = step.probabilities(images, f"networks.{turn}")
    penalty = np.log(1 - (past * np.clip(p, 1e-4, 1 - 1e-4)).sum(axis=1))
    return float(-(target * np.log(p)).sum(axis=1).mean() + strength * penalty.mean())


@pytest.mark.parametrize(("rampup_steps", "weigh"), [(0, False), (9, True)])
def test_losses_histories_and_averages(tmp_path: Path, rampup_steps: int, weigh: bool) -> None:
    extra = {"rampup_steps": rampup_steps, "weigh_labels": weigh, "decay": 0.9, "decay_steps": 8}
    steps = record(tmp_path, linear_strategy("ELRPlus", **OPTIONS, **extra), max_epochs=2, num_samples=40)
    made = [0, 0]
    for epoch in range(2):
        for turn, step in turns_of(steps, epoch):
            made[turn] += 1
            expected = reference(step, turn, LAM * rampup(made[turn], rampup_steps), weigh)
            assert step.loss == pytest.approx(expected, rel=1e-6), (epoch, step.batch)
            if step is steps[-1]:
                continue
            after = steps[steps.index(step) + 1]
            past = remembered(step, turn, teacher(step, 1 - turn, step.views[0]))
            np.testing.assert_allclose(after.stores[f"history_{turn}"][step.index], past, rtol=1e-5)
            decay = rampup(made[turn] + 1, 8) * 0.9
            for number in range(2):
                names = f"teachers.{number}.module.head.weight", f"networks.{number}.head.weight"
                share = decay if number == turn else 1.0
                moved = share * step.weights[names[0]] + (1 - share) * after.weights[names[1]]
                np.testing.assert_allclose(after.weights[names[0]], moved, rtol=1e-10)
    assert made == [10, 10]


def test_averages_without_a_ramp_begin_as_plain_means(tmp_path: Path) -> None:
    module = linear_strategy("ELRPlus", **OPTIONS, decay=0.7, decay_steps=None)
    steps = record(tmp_path, module, max_epochs=1, num_samples=40)
    for number, decay in enumerate([1 / 2, 2 / 3, 0.7, 0.7]):
        before, after = steps[number].weights, steps[number + 1].weights
        moved = decay * before["teachers.0.module.head.weight"] + (1 - decay) * after["networks.0.head.weight"]
        np.testing.assert_allclose(after["teachers.0.module.head.weight"], moved, rtol=1e-10)


def test_a_step_that_ends_one_turn_and_begins_the_next_moves_both_averages(tmp_path: Path) -> None:
    module = linear_strategy("ELRPlus", **OPTIONS, decay=0.9, decay_steps=None)
    moved: list[tuple[int, float]] = []
    for number, average in enumerate(module.teachers):
        average.update = lambda network, number=number, average=average: moved.append((number, average.decay))
    module._due[1] = 7  # left by a fit that broke off
    trainer = make_trainer(tmp_path, [], max_epochs=1, precision="64-true", accumulate_grad_batches=2)
    trainer.fit(module, datamodule=ViewsDataModule(1, seed=0, val_fraction=0.0, num_samples=40))
    assert sorted(moved) == [
        (0, 1 - 1 / 3),
        (0, 1 - 1 / 5),
        (0, 1 - 1 / 6),
        (1, 1 - 1 / 2),
        (1, 1 - 1 / 4),
        (1, 1 - 1 / 6),
    ]


def test_warm_up_remembers_the_networks_own_predictions(tmp_path: Path) -> None:
    module = linear_strategy("ELRPlus", DynamicsAwareLoss(0.7), **OPTIONS, warmup_epochs=1)
    steps = record(tmp_path, module, max_epochs=2, num_samples=40)
    for turn, step in turns_of(steps, 0):
        p = step.probabilities(step.views[0], f"networks.{turn}")
        at_label = p[np.arange(8), step.target]
        assert step.loss == pytest.approx(((1 - at_label**0.7) / 0.7).mean(), rel=1e-6)
        later = steps[steps.index(step) + 1].stores[f"history_{turn}"][step.index]
        np.testing.assert_allclose(later, (1 - MOMENTUM) * p, rtol=1e-5)
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    mean = (module.networks[0](images) + module.networks[1](images)) / 2
    torch.testing.assert_close(module(images).double(), mean)


def test_what_is_refused() -> None:
    with pytest.raises(NoisyLabelError, match=r"^Mixed targets need a loss of logits and soft targets alone, but E"):
        linear_strategy("ELRPlus", EarlyLearningRegularization())
    with pytest.raises(NoisyLabelError, match=r"^Expected argument `momentum` to be a float in \[0, 1\), but got 1"):
        linear_strategy("ELRPlus", momentum=1.0)
