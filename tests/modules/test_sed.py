"""SED against its algorithm in NumPy: threshold, class levels, weights, the teacher's labels, and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.modules.linear import (
    CLASSES,
    assert_learned,
    cross_entropies,
    descend,
    fit,
    linear,
    make_linear,
    make_samples,
    probabilities,
    weights,
)

SAMPLES, BATCH, EPOCHS = 18, 3, 4
X, Y = make_samples(SAMPLES, views=2, seed=1)
M, WEIGHT_M, DECAY, ALPHA, DEVIATIONS = 0.4, 0.6, 0.8, 0.7, 1.5


class Simulation:
    """The algorithm of the paper."""

    def __init__(self, own: list[Tensor], updates: int, clamp: bool) -> None:
        self.own, self.teacher, self.clamp = own, [weight.detach().clone() for weight in own], clamp
        self.m, self.weight_m = M**updates, WEIGHT_M**updates
        self.tau, self.level = 1 / CLASSES, np.full(CLASSES, 1 / CLASSES)
        self.mean, self.variance = np.full(CLASSES, 1 / CLASSES), np.ones(CLASSES)

    def look(self) -> None:
        """Selection and weights, once an epoch: first everything follows, then it is compared."""
        student, teacher = (probabilities(linear(own, X[0])).detach().numpy() for own in (self.own, self.teacher))
        given = student[np.arange(SAMPLES), Y.numpy()]
        self.tau = min(max(self.m * self.tau + (1 - self.m) * np.quantile(given, 0.8), 0.0), 0.95)
        self.level = self.m * self.level + (1 - self.m) * student.mean(axis=0)
        self.clean = given >= self.tau * self.level[Y.numpy()] / self.level.max()
        confidence, self.label = teacher.max(axis=1), teacher.argmax(axis=1)
        for k in range(CLASSES):
            members = confidence[self.label == k]
            mean, variance = (members.mean(), members.var(ddof=1)) if len(members) > 1 else (0.0, 1.0)
            self.mean[k] = self.weight_m * self.mean[k] + (1 - self.weight_m) * mean
            self.variance[k] = self.weight_m * self.variance[k] + (1 - self.weight_m) * variance
        below = np.minimum(confidence - self.mean[self.label], 0)
        self.weight = np.exp(-(below**2) / (2 * self.variance[self.label] / DEVIATIONS**2))

    def train(self, warm: bool) -> int:
        """Steps of an epoch; returns in how many batches nothing was clean."""
        empty = 0
        for start in range(0, SAMPLES, BATCH):
            rows = np.arange(start, start + BATCH)
            weak, strong = (linear(self.own, X[view, rows]) for view in range(2))
            if warm:
                p = probabilities(weak.clamp(min=1e-12) if self.clamp else weak)
                loss = cross_entropies(weak, Y[rows]).mean() + (p * p.log()).sum(dim=1).mean()
            else:
                clean = self.clean[rows]
                pseudo = cross_entropies(strong, torch.from_numpy(self.label[rows]))
                loss = ALPHA * (torch.from_numpy(self.weight[rows]) * pseudo).mean()
                if clean.any():
                    loss = loss + cross_entropies(weak, Y[rows])[clean].mean()
                empty += not clean.any()
            descend(loss, self.own)
            with torch.no_grad():
                self.teacher = [DECAY * t + (1 - DECAY) * w for t, w in zip(self.teacher, self.own, strict=True)]
        return empty


@pytest.mark.parametrize(("updates", "clamp"), [("epoch", False), ("batch", True)])
def test_epochs_by_hand(tmp_path: Path, updates: str, clamp: bool) -> None:
    module: Any = make_linear(
        "SED",
        warmup_epochs=1,
        threshold_momentum=M,
        weight_momentum=WEIGHT_M,
        threshold_updates=updates,
        consistency=ALPHA,
        deviations=DEVIATIONS,
        teacher_decay=DECAY,
        clamp_logits=clamp,
    )
    simulation = Simulation(weights(module.network), 1 if updates == "epoch" else SAMPLES // BATCH, clamp)
    empty = 0
    for epoch in range(EPOCHS):
        if epoch >= 1:
            simulation.look()
        empty += simulation.train(warm=epoch < 1)
    history = fit(tmp_path, module, X, Y, BATCH, EPOCHS)
    assert_learned(module.network, simulation.own, 1e-7)
    assert_learned(module.teacher.module, simulation.teacher, 1e-7)
    assert module.threshold.item() == pytest.approx(simulation.tau, rel=1e-6)
    for name, expected in (
        ("class_level", simulation.level),
        ("confidence_mean", simulation.mean),
        ("confidence_variance", simulation.variance),
    ):
        np.testing.assert_allclose(getattr(module, name).numpy(), expected, rtol=1e-6, err_msg=name)
    last = history[EPOCHS - 1]
    assert last["selection/size"] == pytest.approx(simulation.clean.mean())
    assert last["selection/threshold"] == pytest.approx(simulation.tau)
    assert last["selection/weight"] == pytest.approx(simulation.weight.mean())
    assert empty  # a batch without a clean sample


def follow(confidence: list[float], label: list[int]) -> Any:
    module: Any = make_linear("SED", weight_momentum=0.5)
    module._follow_confidence(torch.tensor(confidence, dtype=torch.float64), torch.tensor(label))
    return module


def test_a_class_that_is_predicted_fewer_than_twice_feeds_mean_0_and_variance_1() -> None:
    """From mean 1/3 and variance 1, half way: class 0 to mean 0.8 and variance 0.02, classes 1 and 2 to 0 and 1."""
    module = follow([0.9, 0.7, 0.6], [0, 0, 1])
    assert module.confidence_mean.tolist() == pytest.approx([(1 / 3 + 0.8) / 2, 1 / 6, 1 / 6])
    assert module.confidence_variance.tolist() == pytest.approx([0.51, 1, 1])


def test_the_threshold_is_at_most_95_percent() -> None:
    module: Any = make_linear("SED", threshold_momentum=0.0)
    module._follow_thresholds(torch.full((9,), 0.99, dtype=torch.float64), torch.full((CLASSES,), 1 / CLASSES).double())
    assert module.threshold.item() == pytest.approx(0.95)


def test_confidences_that_are_all_equal_do_not_break_training(tmp_path: Path) -> None:
    """Without a past (momentum 0) their variance is 0."""
    module: Any = make_linear("SED", warmup_epochs=0, weight_momentum=0.0)
    x = X[:, :1].expand(2, BATCH, -1)
    history = fit(tmp_path, module, x, Y[:1].expand(BATCH), BATCH)
    assert history[0]["selection/weight"] == pytest.approx(1)
