"""SPRL's curriculum on tables of a few samples, and its step against numpy."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lightning_noisy import NoisyLabelError
from tests.foreign import make_trainer
from tests.modules.strategies import make_data, make_strategy
from tests.modules.test_sure import cross_entropies, probabilities

SAMPLES = 40


def test_how_the_curriculum_grows():
    module = make_strategy("SPRL", warmup_epochs=20, full_epochs=30, total_epochs=200)
    module._epochs = lambda: 200
    module.first_tenths.fill_(5)  # 150 epochs for five tenths
    assert [module.tenths(epoch) for epoch in (21, 50, 51, 80, 81, 170, 171, 199)] == [5, 5, 6, 6, 7, 9, 10, 10]
    module.first_tenths.fill_(1)  # 16 2/3 epochs from one tenth to the next
    assert [module.tenths(epoch) for epoch in (21, 37, 38, 70, 71, 170, 171)] == [1, 1, 2, 3, 4, 9, 10]


class Steps(Callback):
    """The curriculum and the loss of each step, computed anew."""

    def __init__(self):
        self.last = np.zeros((SAMPLES, 4))
        self.seen, self.shares = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.eval()
        if trainer.current_epoch == 0:
            return
        loader = trainer.datamodule.scoring_loader()
        with torch.no_grad():
            p = np.concatenate([probabilities(pl_module(x).double().numpy()) for x, _, _ in loader])
        given = trainer.datamodule.noisy_targets.numpy()
        sure = p[np.arange(SAMPLES), given]
        if trainer.current_epoch == 1:
            self.first = min(5, int(np.floor(10 * (sure >= 0.5).mean())) + 1)
        tenths = min(10, self.first + math.floor((10 - self.first) * (trainer.current_epoch - 1) / 4 + 1e-9))
        self.chosen = np.zeros(SAMPLES, dtype=bool)
        for k in range(4):
            rows = np.flatnonzero(given == k)
            order = rows[np.argsort(-sure[rows], kind="stable")]
            self.chosen[order[: max(1, len(rows) * tenths // 10)]] = True
        self.shares.append(self.chosen.mean())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with torch.no_grad():
            z = pl_module(batch[0]).double().numpy()
        y, rows, epoch = batch[1].numpy(), batch[2].numpy(), trainer.current_epoch
        losses = cross_entropies(z, y)
        if epoch == 0:
            self.expected = losses.mean()
        else:
            chosen = self.chosen[rows]
            resistance = (10 - self.first) * 3.0 * np.exp(-5 * (1 - epoch / 6) ** 2)
            forgotten = -(self.last[rows] * np.log(probabilities(z))).sum(1)
            self.expected = (losses[chosen].mean() if chosen.any() else 0.0) + resistance * forgotten.mean()
        self.last[rows] = probabilities(z)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((float(outputs["loss"]), self.expected))


def test_steps_are_those_of_the_paper(tmp_path):
    module = make_strategy("SPRL", warmup_epochs=0, full_epochs=2, total_epochs=6, resistance=3.0)
    steps = Steps()
    make_trainer(tmp_path, [steps], max_epochs=6).fit(module, datamodule=make_data("SPRL"))
    assert len(steps.seen) == 30
    for loss, expected in steps.seen:
        assert loss == pytest.approx(expected, rel=1e-4)
    sizes = [module.history[epoch]["selection/size"] for epoch in range(1, 6)]
    assert sizes == pytest.approx(steps.shares)
    assert sizes[0] < sizes[-1]
    assert "selection/precision" in module.history[3]
    assert "selection/size" not in module.history[0]
    assert int(module.first_tenths) == steps.first


def test_refusals():
    wrong = {"warmup_epochs": -1, "resistance": -1.0, "ramp_epochs": 0, "full_epochs": -1, "total_epochs": 0}
    for name, value in wrong.items():
        with pytest.raises(NoisyLabelError, match=f"`{name}`"):
            make_strategy("SPRL", **{name: value})
