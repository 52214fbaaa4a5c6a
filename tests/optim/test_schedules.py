"""Learning rates at their corners, against the loops of the papers' codes and torch's own schedulers."""

import copy
import math

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR
from torch.optim.swa_utils import SWALR

from lightning_noisy import NoisyLabelError
from lightning_noisy.optim import SAM, CosineDecay, CosineToConstant, LinearDecay, Warmup, scheduler_configs
from tests.foreign import make_trainer
from tests.small import SmallDataModule, make_module


def make_optimizer(kind=torch.optim.Adam, lr=0.1, **options):
    return kind([nn.Parameter(torch.zeros(1))], lr=lr, **options)


def rates(make, epochs, optimizer=None):
    """The rate and the first group of each epoch."""
    optimizer = optimizer or make_optimizer()
    scheduler, seen = make(optimizer), []
    for _ in range(epochs):
        seen.append(dict(optimizer.param_groups[0]))
        optimizer.step()
        scheduler.step()
    return [group["lr"] for group in seen], seen


def test_linear_decay_is_that_of_co_teaching():
    plan, betas = [0.1] * 200, [0.9] * 200
    for epoch in range(80, 200):
        plan[epoch], betas[epoch] = (200 - epoch) / (200 - 80) * 0.1, 0.1
    seen, groups = rates(lambda o: LinearDecay(o, total_epochs=200, final_momentum=0.1), 202)
    assert seen == pytest.approx([*plan, 0.0, 0.0], abs=1e-15)
    assert seen[79] == seen[80] == 0.1
    assert seen[199] == pytest.approx(0.1 / 120)
    assert [group["betas"] for group in groups[:200]] == [(beta, 0.999) for beta in betas]
    sgd = make_optimizer(torch.optim.SGD, momentum=0.9)
    _, groups = rates(lambda o: LinearDecay(o, 3, start_epoch=2, final_momentum=0.5), 3, sgd)
    assert [group["momentum"] for group in groups] == [0.9, 0.9, 0.5]
    _, groups = rates(lambda o: LinearDecay(o, 3, start_epoch=0), 3)
    assert groups[2]["betas"] == (0.9, 0.999)


def test_cosine_decay_after_a_warm_up_of_its_own_rate():
    seen, _ = rates(lambda o: CosineDecay(o, 140, 20, final_lr=5e-5, warmup_lr=0.05), 150, make_optimizer(lr=0.01))
    assert seen[:20] == [0.05] * 20
    assert seen[20] == pytest.approx(0.01)
    assert seen[80] == pytest.approx((0.01 + 5e-5) / 2)
    assert seen[140] == pytest.approx(5e-5)
    assert seen[149] == pytest.approx(5e-5)
    ours, _ = rates(lambda o: CosineDecay(o, 30, final_lr=1e-3), 31)
    theirs, _ = rates(lambda o: CosineAnnealingLR(o, 30, eta_min=1e-3), 31)
    assert ours == pytest.approx(theirs)


def test_cosine_to_constant_is_the_loop_of_sure():
    """Its epochs count from 1: the cosine steps up to `swa_epoch_start`, then torch's SWALR."""
    optimizer, expected = make_optimizer(lr=0.1), []
    cosine, swa = CosineAnnealingLR(optimizer, T_max=200), SWALR(optimizer, swa_lr=0.05)
    for epoch in range(1, 202):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (swa if epoch > 120 else cosine).step()
    seen, _ = rates(lambda o: CosineToConstant(o, 200, start_epoch=120, constant_lr=0.05), 201)
    assert seen == pytest.approx(expected, rel=1e-9)
    assert seen[120] == pytest.approx(0.05 * (1 + math.cos(0.6 * math.pi)))
    assert seen[130] == seen[200] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: MultiStepLR(o, [2, 3], gamma=0.2),
        lambda o: CosineAnnealingLR(o, 5, eta_min=0.03),
        lambda o: CosineDecay(o, 5, final_lr=0.03),
        None,
    ],
)
def test_warm_up_on_top_of_a_schedule(schedule):
    """Seven steps over epochs of three; the schedule's own rates are those without a warm-up."""
    plain = rates(schedule, 6)[0] if schedule else [0.1] * 6
    optimizer = make_optimizer()
    configs = scheduler_configs(Warmup(optimizer, 7, schedule))
    assert [config["interval"] for config in configs] == ["epoch", "step"]
    seen = []
    for _ in range(6):
        for _ in range(3):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            configs[1]["scheduler"].step()
        configs[0]["scheduler"].step()
    assert seen == pytest.approx([plain[t // 3] * min(1, (t + 1) / 7) for t in range(18)], rel=1e-9)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_warm_up_resumes_inside_an_epoch(tmp_path):
    def run(ckpt_path=None, callbacks=()):
        module, seen = make_module(nn.CrossEntropyLoss(), dropout=0.0), Rates()
        module.make_lr_scheduler = lambda optimizer: Warmup(optimizer, 12, lambda o: MultiStepLR(o, [2], gamma=0.1))
        trainer = make_trainer(tmp_path, [seen, *callbacks], 3, enable_checkpointing=bool(callbacks))
        trainer.fit(module, datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
        return module.state_dict(), seen.seen

    weights, whole = run(callbacks=[ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)])
    expected = [0.05 * (0.1 if t >= 10 else 1) * min(1, (t + 1) / 12) for t in range(15)]
    assert whole == pytest.approx(expected)
    resumed, rest = run(tmp_path / "step=7.ckpt")
    assert rest == whole[7:]
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)


def test_yaml_says_it_all():
    text = """
    optimizer:
      class_path: lightning_noisy.optim.SAM
      init_args:
        rho: 0.1
        base: {class_path: torch.optim.SGD, init_args: {lr: 0.2, momentum: 0.9}}
    lr_scheduler:
      class_path: lightning_noisy.optim.Warmup
      init_args:
        steps: 4
        schedule: {class_path: lightning_noisy.optim.LinearDecay, init_args: {total_epochs: 3, start_epoch: 1}}
    """
    parser = ArgumentParser()
    parser.add_argument("--optimizer", type=OptimizerCallable)
    parser.add_argument("--lr_scheduler", type=LRSchedulerCallable)
    made = parser.instantiate_classes(parser.parse_object(yaml.safe_load(text)))
    optimizer = made.optimizer([nn.Parameter(torch.zeros(1))])
    scheduler = made.lr_scheduler(optimizer)
    assert isinstance(optimizer, SAM)
    assert optimizer.base.param_groups[0]["momentum"] == 0.9
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.05)
    state = copy.deepcopy(scheduler.state_dict())
    assert "schedule" not in state


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda o: LinearDecay(o, 0), "total_epochs"),
        (lambda o: LinearDecay(o, 80), "start_epoch"),
        (lambda o: LinearDecay(o, 81, final_momentum=1.0), "final_momentum"),
        (lambda o: CosineDecay(o, 20, 20), "start_epoch"),
        (lambda o: CosineDecay(o, 20, final_lr=-1.0), "final_lr"),
        (lambda o: CosineDecay(o, 20, warmup_lr=-1.0), "warmup_lr"),
        (lambda o: CosineToConstant(o, 20, 21), "start_epoch"),
        (lambda o: CosineToConstant(o, 200, constant_lr=-1.0), "constant_lr"),
        (lambda o: CosineToConstant(o, 200, anneal_epochs=0), "anneal_epochs"),
        (lambda o: Warmup(o, 0), "steps"),
        (lambda o: Warmup(o, 5, lambda p: ReduceLROnPlateau(p, monitor="val/acc")), "schedule"),
    ],
)
def test_refused_arguments(make, named):
    with pytest.raises(NoisyLabelError, match=f"`{named}`"):
        make(make_optimizer())
    if named == "final_momentum":
        with pytest.raises(NoisyLabelError, match="without momentum"):
            LinearDecay(make_optimizer(torch.optim.Adagrad), 81, final_momentum=0.1)
