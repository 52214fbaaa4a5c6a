"""SAM against two explicit gradient steps, alone, under Lightning, and in two processes."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import LossMemory, MaskRefresh
from lightning_noisy.data import IndexedDataset
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.optim import SAM
from tests.distributed import WORLD_SIZE
from tests.foreign import SHARDING, ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

RHO, LR, MOMENTUM, DECAY = 0.3, 0.1, 0.9, 0.01


def sgd(parameters, rho=RHO, **options):
    return SAM(parameters, torch.optim.SGD, rho, **options, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)


@pytest.mark.parametrize("adaptive", [False, True])
def test_two_explicit_gradient_steps(adaptive):
    """Least squares in numpy: the gradient is known, and the norm goes over both parameters."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(7, 3)), generator.normal(size=7)
    weight, bias, slow = generator.normal(size=3), generator.normal(size=1), [np.zeros(3), np.zeros(1)]
    parameters = [nn.Parameter(torch.tensor(value)) for value in (weight, bias)]
    optimizer = sgd(parameters, adaptive=adaptive)

    def closure():
        optimizer.zero_grad()
        loss = ((torch.tensor(x) @ parameters[0] + parameters[1] - torch.tensor(y)) ** 2).mean()
        loss.backward()
        return loss

    def gradient(w, b):
        residual = x @ w + b - y
        return 2 * x.T @ residual / len(y), np.array([2 * residual.mean()])

    for _ in range(3):
        first = ((x @ weight + bias - y) ** 2).mean()
        climbed = []
        sizes = [abs(value) if adaptive else np.ones_like(value) for value in (weight, bias)]
        scaled = [size * part for size, part in zip(sizes, gradient(weight, bias), strict=True)]
        norm = np.sqrt(sum((part**2).sum() for part in scaled))
        climbed = [v + RHO * s * p / norm for v, s, p in zip((weight, bias), sizes, scaled, strict=True)]
        second = gradient(*climbed)
        for value, part, velocity in zip((weight, bias), second, slow, strict=True):
            velocity[:] = MOMENTUM * velocity + part + DECAY * value
            value -= LR * velocity
        assert optimizer.step(closure).item() == pytest.approx(first, rel=1e-12)
        for parameter, value in zip(parameters, (weight, bias), strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-10)


def two_passes(module, batches):
    """The same training without SAM's code, under plain SGD."""
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    losses = []
    for x, y in batches:
        first = F.cross_entropy(module(x), y)
        gradients = torch.autograd.grad(first, list(module.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        moved = copy.deepcopy(module)
        with torch.no_grad():
            for parameter, g in zip(moved.parameters(), gradients, strict=True):
                parameter += RHO * g / norm
        second = torch.autograd.grad(F.cross_entropy(moved(x), y), list(moved.parameters()))
        for parameter, g in zip(module.parameters(), second, strict=True):
            parameter.grad = g
        optimizer.step()
        losses.append(first.item())
    return losses


class Sharp(ForeignModule):
    def __init__(self, make=sgd, **options):
        super().__init__(**options)
        self.make, self.seen = make, []

    def training_step(self, batch, batch_idx):
        loss = self.criterion(self(batch[0]), batch[1])
        self.seen.append(loss.item())
        return loss

    def configure_optimizers(self):
        return self.make(self.parameters())


def test_a_project_under_automatic_optimization(tmp_path):
    x, noisy, _ = make_tensors()
    torch.manual_seed(0)
    module = Sharp().double()
    plain = copy.deepcopy(module)
    batches = [(x[i : i + 8].double(), noisy[i : i + 8]) for i in range(0, 24, 8)]
    data = IndexedDataset(TensorDataset(x.double(), noisy))
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, make_loader(data))
    losses = two_passes(plain, 2 * batches)
    assert module.seen[::2] == pytest.approx(losses, rel=1e-10)
    assert trainer.global_step == 6
    torch.testing.assert_close(module.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-12)


class Memory(Callback):
    """What a loss remembers, and what went into the criterion."""

    def __init__(self):
        self.rows, self.logits, self.given = [], [], []

    def on_train_start(self, trainer, pl_module):
        self.loss = next(m for m in pl_module.modules() if isinstance(m, EarlyLearningRegularization))

        def note(_, args, kwargs):
            self.logits.append(args[0].detach().clone())
            self.given.append(args[1].clone())

        self.handle = self.loss.register_forward_pre_hook(note, with_kwargs=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append(self.loss.stores["prediction"].get(batch[2]))

    def on_train_end(self, trainer, pl_module):
        self.handle.remove()


@pytest.mark.parametrize("foreign", [False, True])
def test_memories_and_figures_are_those_of_the_first_pass(tmp_path, foreign):
    memory, loss = Memory(), EarlyLearningRegularization(lam=3.0, momentum=0.7)
    if foreign:
        module, x, noisy = Sharp(), *make_tensors()[:2]
        module.criterion = loss
        data, callbacks = make_loader(IndexedDataset(TensorDataset(x, noisy))), [LossMemory(), memory]
        module.training_step = lambda batch, batch_idx: loss(module(batch[0]), batch[1])
        make_trainer(tmp_path, callbacks, max_epochs=1).fit(module, data)
    else:
        module = make_module(loss)
        module.make_optimizer = sgd
        make_trainer(tmp_path, [memory], max_epochs=1).fit(module, datamodule=SmallDataModule(seed=0))
        hits = [(logits.argmax(1) == y).float() for logits, y in zip(memory.logits, memory.given, strict=True)]
        assert module.history[0]["train/acc"] == pytest.approx(torch.cat(hits[::2]).mean().item())
    assert len(memory.logits) == 2 * len(memory.rows)
    for logits, rows in zip(memory.logits[::2], memory.rows, strict=True):
        probabilities = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        expected = 0.3 * probabilities / probabilities.sum(1, keepdim=True)  # stores start at zero
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_loss_is_that_of_the_first_pass(tmp_path):
    module = make_module(nn.CrossEntropyLoss(), dropout=0.0)
    module.make_optimizer = sgd
    seen = []
    module.loss.register_forward_hook(lambda _, args, loss: seen.append(loss.item()))
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=SmallDataModule(seed=0))
    assert len(seen) == 10
    assert module.history[0]["train/loss"] == pytest.approx(np.mean(seen[::2]), rel=1e-6)


def test_both_passes_of_a_step_have_one_mask(tmp_path):
    masks = []
    module = make_module(nn.CrossEntropyLoss())
    module.make_optimizer = sgd
    module.loss.register_forward_hook(lambda *_: masks.append(module.network.head.edge_mask.clone()))
    callback = MaskRefresh(ratio=0.5, score="random")
    make_trainer(tmp_path, [callback], max_epochs=1).fit(module, datamodule=SmallDataModule(seed=0))
    assert all(first.equal(second) for first, second in zip(masks[::2], masks[1::2], strict=True))
    assert not masks[0].equal(masks[2])


def test_schedulers_act_on_the_base_and_state_goes_round():
    def make():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = SAM(model.parameters(), torch.optim.Adam, lr=0.1, betas=(0.8, 0.9))
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def train(model, optimizer, scheduler, steps):
        x = torch.linspace(-1, 1, 12).view(4, 3)

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            return loss

        for _ in range(steps):
            optimizer.step(closure)
            scheduler.step()

    whole, first, second = make(), make(), make()
    train(*whole, 4)
    train(*first, 2)
    for part, saved in zip(second, first, strict=True):
        part.load_state_dict(copy.deepcopy(saved.state_dict()))
    train(*second, 2)
    assert second[1].base.param_groups[0]["lr"] == pytest.approx(0.1 / 16)
    assert second[1].param_groups[0]["rho"] == 0.05
    torch.testing.assert_close(second[0].state_dict(), whole[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(second[1].state_dict(), whole[1].state_dict(), rtol=0, atol=0)
    copied = copy.deepcopy(second[1])
    assert copied.param_groups is copied.base.param_groups
    second[1].add_param_group({"params": [nn.Parameter(torch.zeros(1))], "rho": 0.2})
    assert second[1].base.param_groups[-1]["betas"] == (0.8, 0.9)


def fit(folder, module, **options):
    x, noisy, _ = make_tensors()
    make_trainer(folder, **options).fit(module, make_loader(IndexedDataset(TensorDataset(x, noisy))))


def test_refusals(tmp_path):
    with pytest.raises(NoisyLabelError, match="`rho` to be a float of at least 0, but got -1"):
        sgd([nn.Parameter(torch.zeros(1))], rho=-1)
    with pytest.raises(NoisyLabelError, match="got no closure"):
        sgd([nn.Parameter(torch.zeros(1))]).step()
    scaler = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(NoisyLabelError, match="use precision 'bf16-mixed' or 32"):
        fit(tmp_path, Sharp(), plugins=[scaler])
    with pytest.raises(NoisyLabelError, match="accumulate_grad_batches=2"):
        fit(tmp_path, Sharp(), accumulate_grad_batches=2)
    with pytest.raises(NoisyLabelError, match="shards its weights"):
        fit(tmp_path, Sharp(), callbacks=[Pretend(SHARDING[0])])
    manual = Sharp()
    manual.automatic_optimization = False

    def step(batch, batch_idx):
        manual.manual_backward(manual.criterion(manual(batch[0]), batch[1]))
        manual.optimizers().step()

    manual.training_step = step
    with pytest.raises(NoisyLabelError, match="called its closure a second time"):
        fit(tmp_path, manual)
    fit(tmp_path, Sharp(), precision="bf16-mixed", gradient_clip_val=0.1)


class Pretend(Callback):
    """Gives the strategy another class while a fit runs."""

    def __init__(self, strategy):
        self.strategy = strategy

    def on_train_start(self, trainer, pl_module):
        trainer.strategy.__class__ = type(self.strategy.__name__, (type(trainer.strategy),), {})
        type(trainer.strategy).__module__ = "lightning.pytorch.strategies"


def test_weights_come_back_after_a_failure_of_the_second_pass(tmp_path):
    module = Sharp()
    start = copy.deepcopy(module.state_dict())

    def step(batch, batch_idx):
        if module.seen:
            raise RuntimeError("crash")
        module.seen.append(0)
        return module.criterion(module(batch[0]), batch[1])

    module.training_step = step
    with pytest.raises(RuntimeError, match="crash"):
        fit(tmp_path, module, callbacks=[OnExceptionCheckpoint(tmp_path)], enable_checkpointing=True)
    saved = torch.load(tmp_path / "on_exception.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(saved, dict(start), rtol=0, atol=0)


def fit_process(rank, processes):
    x, noisy, _ = make_tensors()
    torch.manual_seed(0)
    module = Sharp().double()
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    mine = torch.arange(24)[rank::processes]
    data = TensorDataset(x[mine].double(), noisy[mine])
    trainer.fit(module, make_loader(data, 8 // processes))
    return module.state_dict()


def test_both_passes_are_those_of_all_processes(pool):
    ranks = pool.run(fit_process, WORLD_SIZE)
    alone = fit_process(0, 1)
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)
    torch.testing.assert_close(ranks[0], alone, rtol=1e-9, atol=1e-12)
