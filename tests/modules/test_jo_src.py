"""Jo-SRC's thresholds at their corners, and its step against numpy."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.functional.losses import cross_entropy, smooth_losses, smoothed_labels
from tests.foreign import make_trainer
from tests.modules.strategies import make_data, make_strategy
from tests.modules.test_sure import probabilities


def test_smoothing():
    rows = smoothed_labels(torch.tensor([2, 0]), 4, 0.6)
    torch.testing.assert_close(rows, torch.tensor([[0.2, 0.2, 0.4, 0.2], [0.4, 0.2, 0.2, 0.2]]))
    logits = torch.randn(2, 4, dtype=torch.float64)
    smoothed = smooth_losses(cross_entropy(logits, torch.tensor([2, 0])), logits, 0.6)
    torch.testing.assert_close(smoothed, cross_entropy(logits, rows.double()), rtol=1e-6, atol=1e-7)
    theirs = nn.CrossEntropyLoss(label_smoothing=0.8, reduction="none")(logits, torch.tensor([2, 0]))
    torch.testing.assert_close(smoothed, theirs)


class Run:
    def total_epochs(self, owner, given):
        return given


def test_thresholds_at_their_corners():
    module = make_strategy("JoSRC", warmup_epochs=10, total_epochs=200)
    module._run = Run()
    thresholds = [module.threshold_of(epoch) for epoch in (0, 5, 9, 10, 105, 199)]
    assert thresholds == pytest.approx([0.0, 0.375, 0.675, 0.75, 0.85, 0.75 + 0.2 * 189 / 190])


def divergence(p, q):
    return (p * (np.log2(p) - np.log2(q))).sum(1)


class Steps(Callback):
    def __init__(self):
        self.seen, self.kinds = [], set()

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.eval()
        pl_module.teacher.eval()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        images, target, _ = batch
        with torch.no_grad():
            p, q = (probabilities(pl_module.network(view).double().numpy()) for view in images)
            told = np.mean([probabilities(pl_module.teacher(view).double().numpy()) for view in images], axis=0)
        epoch, size = trainer.current_epoch, len(target)
        tilde = np.full((size, 4), 0.6 / 3)
        tilde[np.arange(size), target.numpy()] = 0.4
        middle = (p + tilde) / 2
        clean = 1 - (divergence(p, middle) + divergence(tilde, middle)) / 2
        threshold = 0.0 if epoch == 0 else 0.7 + 0.15 * (epoch - 1) / 3
        targets, signs, total = tilde.copy(), np.ones(size), 0.0
        for i in range(size):
            if clean[i] >= threshold:
                self.kinds.add("clean")
            elif p[i].argmax() == q[i].argmax():
                targets[i] = told[i]
                self.kinds.add("inside")
            else:
                targets[i] = probabilities(told[i : i + 1] / 10)[0]
                signs[i] = -1
                self.kinds.add("outside")
        losses = -(targets * (np.log(p) + np.log(q))).sum(1)
        if epoch == 0:
            self.expected = losses[clean >= 0].mean()
        else:
            total = (signs * (divergence(p, q) + divergence(q, p))).mean()
            self.expected = 0.7 * losses.mean() + 0.3 * total

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((float(outputs["loss"]), self.expected))


def spread_predictions(module, data):
    """Make them differ from sample to sample and from view to view."""
    data.setup("fit")
    images = next(iter(data.train_dataloader()))[0][0]
    with torch.no_grad():
        center = module.network.eval().features(images).mean(0)
        for head in (module.network.head, module.teacher.module.head):
            head.weight *= 1000
            head.bias.copy_(-head.weight @ center)


def test_steps_are_those_of_the_paper(tmp_path):
    options = {"threshold": 0.7, "final_threshold": 0.85, "consistency": 0.3, "teacher_decay": 0.7}
    module, steps = make_strategy("JoSRC", warmup_epochs=1, total_epochs=4, **options), Steps()
    data = make_data("JoSRC")
    spread_predictions(module, data)
    module.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e-4)
    before = module.teacher.module.state_dict()["head.weight"].clone()
    make_trainer(tmp_path, [steps], max_epochs=4).fit(module, datamodule=data)
    assert steps.kinds == {"clean", "inside", "outside"}
    assert len(steps.seen) == 20
    for loss, expected in steps.seen:
        assert loss == pytest.approx(expected, rel=1e-4)
    assert module.history[2]["selection/threshold"] == pytest.approx(0.7 + 0.15 / 3)
    assert not torch.equal(before, module.teacher.module.state_dict()["head.weight"])


def test_a_batch_without_a_clean_sample_has_no_loss(tmp_path):
    module = make_strategy("JoSRC", warmup_epochs=2, threshold=1.0)
    module.threshold_of = lambda epoch: 1.0
    before = {name: value.clone() for name, value in module.network.head.named_parameters()}
    module.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=make_data("JoSRC"))
    assert module.history[0]["train/loss"] == 0
    assert all(value.equal(before[name]) for name, value in module.network.head.named_parameters())


def test_refusals(tmp_path):
    for name, value in (("smoothing", 0.8), ("threshold", 1.1), ("consistency", -0.1), ("temperature", 0.0)):
        with pytest.raises(NoisyLabelError, match=f"`{name}`"):
            make_strategy("JoSRC", **{name: value})
    with pytest.raises(NoisyLabelError, match=r"trains on 2 views .*`views=\['weak', 'weak'\]`"):
        make_trainer(tmp_path).fit(make_strategy("JoSRC"), datamodule=make_data("JoSRC", views=1))
