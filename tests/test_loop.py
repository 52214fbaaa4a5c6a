"""The callbacks in a loop of one's own do what they do under a Trainer."""

import io

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop
from lightning_noisy.callbacks import (
    CDR,
    SELC,
    ConfidenceTracker,
    DALSchedule,
    GradientSwitching,
    LossMemory,
    MaskRefresh,
    MaskTracker,
    MixUp,
    ParameterSchedule,
    RunSummary,
    StepSeed,
    TrainingDynamics,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.losses import DynamicsAwareLoss, EarlyLearningRegularization
from lightning_noisy.optim import SAM
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import assert_same

X, NOISY, CLEAN = make_tensors()
TRAIN_SET = TensorDataset(X, NOISY)


class Plain(nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(8, 4)

    def forward(self, x):
        return self.classifier(self.body(x))


CASES = {
    "selc": (lambda: [SELC(warmup_epochs=1, clean_targets=CLEAN), ConfidenceTracker(CLEAN), TrainingDynamics()], None),
    "switching": (lambda: [GradientSwitching(initial_pool="zeros"), ConfidenceTracker()], None),
    "masks": (
        lambda: [MaskRefresh("classifier", score="magnitude", granularity="edge"), MaskTracker("classifier")],
        None,
    ),
    "gradient": (lambda: [MaskRefresh("classifier", score="gradient", every_n_steps=2)], None),
    "cdr": (lambda: [CDR(0.4), ConfidenceTracker()], None),
    "memory": (lambda: [LossMemory(), ConfidenceTracker()], EarlyLearningRegularization),
    "schedule": (lambda: [DALSchedule(1.0), ConfidenceTracker()], lambda: DynamicsAwareLoss(q=1.0)),
}


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.1)


def sam(parameters):
    return SAM(parameters, torch.optim.SGD, lr=0.1)


def under_a_trainer(folder, case, epochs, optimizer=sgd):
    callbacks, criterion = CASES[case]
    torch.manual_seed(0)
    module, members = ForeignModule(dropout=0.2), callbacks()
    module.criterion = nn.CrossEntropyLoss() if criterion is None else criterion()
    module.training_step = lambda batch, batch_idx: module.criterion(module(batch[0]), batch[1])
    module.configure_optimizers = lambda: optimizer(module.parameters())
    make_trainer(folder, [StepSeed(3), *members], epochs).fit(module, DataLoader(TRAIN_SET, 8))
    return state_of(module, members)


def state_of(module, members):
    sections = [member.section.state_dict() for member in members if hasattr(member, "section")]
    weights = {name: value for name, value in module.state_dict().items() if name.startswith(("body", "classifier"))}
    return {"weights": weights, "sections": sections, "histories": [getattr(each, "history", {}) for each in members]}


class Loop:
    def __init__(self, case, fabric=None, optimizer=sgd):
        callbacks, criterion = CASES[case]
        torch.manual_seed(0)
        self.module, self.members = Plain(), callbacks()
        self.criterion = F.cross_entropy if criterion is None else criterion()
        own = None if criterion is None else self.criterion
        self.optimizer, self.model = optimizer(self.module.parameters()), self.module
        self.noisy = NoisyLoop(self.module, self.optimizer, [StepSeed(3), *self.members], TRAIN_SET, 3, criterion=own)
        self.backward = torch.Tensor.backward
        if fabric is not None:
            self.model, self.optimizer = fabric.setup(self.module, self.optimizer)
            self.backward = fabric.backward

    def run(self, epochs, loader=None):
        for epoch in epochs:
            for x, y, index in loader or DataLoader(IndexedDataset(TRAIN_SET), 8):
                with self.noisy.batch(index, epoch):
                    self.backward(self.criterion(self.model(x), y))
                    self.optimizer.step()
                self.optimizer.zero_grad()
            self.noisy.end_epoch()

    def saved(self):
        file = io.BytesIO()
        parts = {"model": self.module.state_dict(), "noisy": self.noisy.state_dict()}
        torch.save(parts, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def go_on(self, saved):
        self.module.load_state_dict(saved["model"])
        self.noisy.load_state_dict(saved["noisy"])


def made(callbacks, train_set=TRAIN_SET):
    module = Plain()
    return NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), callbacks, train_set)


@pytest.mark.parametrize("with_fabric", [False, True], ids=["plain", "fabric"])
@pytest.mark.parametrize("case", CASES)
def test_a_loop_equals_a_trainer(tmp_path, case, with_fabric):
    loop = Loop(case, Fabric(accelerator="cpu", devices=1) if with_fabric else None)
    loop.run(range(3))
    loop.noisy.finish()
    expected = under_a_trainer(tmp_path, case, 3)
    assert_same(state_of(loop.module, loop.members), expected)
    assert type(loop.module.classifier) is nn.Linear
    assert not loop.module.classifier._forward_pre_hooks
    if not with_fabric:
        assert not loop.optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("with_fabric", [False, True], ids=["plain", "fabric"])
@pytest.mark.parametrize("case", ["memory", "cdr", "selc"])
def test_passes_of_a_closure_are_those_of_a_trainer(tmp_path, case, with_fabric):
    """Memories move in the first pass alone, and callbacks see the gradients of each."""
    loop = Loop(case, Fabric(accelerator="cpu", devices=1) if with_fabric else None, sam)
    for epoch in range(3):
        for x, y, index in DataLoader(IndexedDataset(TRAIN_SET), 8):

            def closure(x=x, y=y):
                loop.optimizer.zero_grad()
                loss = loop.criterion(loop.model(x), y)
                loop.backward(loss)
                return loss

            with loop.noisy.batch(index, epoch):
                loop.optimizer.step(closure)
        loop.noisy.end_epoch()
    loop.noisy.finish()
    assert_same(state_of(loop.module, loop.members), under_a_trainer(tmp_path, case, 3, sam))


@pytest.mark.parametrize("case", CASES)
def test_a_loop_goes_on_from_saved_state(tmp_path, case):
    first = Loop(case)
    first.run(range(2))
    second = Loop(case)
    second.go_on(first.saved())
    second.run(range(2, 3))
    assert_same(state_of(second.module, second.members), under_a_trainer(tmp_path, case, 3))
    with pytest.raises(NoisyLabelError, match="load its state before the first batch"):
        second.go_on(first.saved())


def test_state_of_another_set_and_epochs_out_of_turn_are_refused():
    loop = Loop("selc")
    loop.run(range(1))
    other = made([SELC()], TensorDataset(X[:20], NOISY[:20]))
    other.load_state_dict(loop.saved()["noisy"])
    with pytest.raises(NoisyLabelError, match="24 training samples, this run has 20"), other.batch(torch.arange(2), 1):
        pass
    with loop.noisy.batch(torch.arange(8), 1):
        loop.criterion(loop.model(X[:8]), NOISY[:8])
    with pytest.raises(NoisyLabelError, match="call `end_epoch"), loop.noisy.batch(torch.arange(8), 2):
        pass


@pytest.mark.parametrize(
    ("index", "epoch", "message"),
    [
        ([0, 1], 0, r"`index` to be positions in the training set, a tensor int64 \(B,\), but got 'list'"),
        (torch.zeros(2, dtype=torch.int32), 0, r"but got 'torch.int32 \(2,\)'"),
        (torch.arange(2), 1.5, "`epoch` to be an int of at least 0, but got 1.5"),
        (torch.arange(2), -1, "`epoch` to be an int of at least 0, but got -1"),
    ],
)
def test_a_batch_of_no_samples_or_epoch_is_refused(index, epoch, message):
    noisy = made([SELC()])
    with pytest.raises(NoisyLabelError, match=message), noisy.batch(index, epoch):
        pass


def test_update_is_for_those_who_look():
    with pytest.raises(NoisyLabelError, match="SELC, ConfidenceTracker would change the target of a loss"):
        made([SELC(), ConfidenceTracker(CLEAN)]).update(torch.zeros(8, 4), NOISY[:8], torch.arange(8), 0)


def test_what_is_no_saved_state_is_refused():
    with pytest.raises(
        NoisyLabelError, match=r"`state` to be what `state_dict` of a NoisyLoop gave, .*the keys model, noisy"
    ):
        made([SELC()]).load_state_dict({"model": {}, "noisy": {}})


def test_after_an_exception_nothing_acts():
    loop = Loop("selc")
    with pytest.raises(ZeroDivisionError), loop.noisy.batch(torch.arange(8), 0):
        raise ZeroDivisionError
    loop.criterion(loop.model(X[:5]), NOISY[:5])
    loop.run(range(3))
    loop.noisy.finish()


@pytest.mark.parametrize("callback", [MixUp(), RunSummary(), ParameterSchedule("loss.lam", 0, 1, interval="step")])
def test_what_acts_on_a_trainer_is_refused(callback):
    with pytest.raises(NoisyLabelError, match=f"{type(callback).__name__} acts on what a Trainer does"):
        made([callback])


def test_a_criterion_that_is_never_called_is_refused():
    noisy = made([SELC()])
    with pytest.warns(UserWarning, match="first training step has not called"), noisy.batch(torch.arange(8), 0):
        pass
    with pytest.raises(NoisyLabelError, match="SELC did nothing"):
        noisy.finish()


def loop_on_two(rank):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    loop = Loop("selc", fabric)
    loop.module.body[2].p = 0.0
    sampler = DistributedSampler(IndexedDataset(TRAIN_SET), 2, rank, shuffle=False)
    loop.run(range(3), DataLoader(IndexedDataset(TRAIN_SET), 4, sampler=sampler))
    return state_of(loop.module, loop.members)


def test_two_processes_equal_one(pool):
    first, second = pool.run(loop_on_two)
    alone = Loop("selc")
    alone.module.body[2].p = 0.0
    alone.run(range(3))
    expected = state_of(alone.module, alone.members)
    for ours in (first, second):
        torch.testing.assert_close(ours["weights"], expected["weights"], rtol=1e-4, atol=1e-6)
        rows = [state["sections"][0]["stores"]["target"]["values"] for state in (ours, expected)]
        torch.testing.assert_close(*rows, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["selc", "switching"])
def test_a_criterion_that_cannot_be_reached_asks_for_its_target(case):
    def run(criterion):
        loop = Loop(case)
        loop.criterion = criterion or loop.criterion
        loop.run(range(3))
        return state_of(loop.module, loop.members)

    def by_hand(logits, labels):
        target = now.noisy.target(logits, labels)
        rows = target if target.is_floating_point() else F.one_hot(target, 4)
        return -(rows * logits.log_softmax(dim=1)).sum(dim=1).mean()

    now = Loop(case)
    now.criterion = by_hand
    now.run(range(3))
    torch.testing.assert_close(state_of(now.module, now.members)["weights"], run(None)["weights"], rtol=1e-5, atol=1e-6)
    alone = made([StepSeed()])
    with alone.batch(torch.arange(8), 0), pytest.raises(NoisyLabelError, match="look at 0 criteria"):
        alone.target(torch.zeros(8, 4), NOISY[:8])


def test_trackers_are_updated_by_hand(tmp_path):
    torch.manual_seed(0)
    module, tracker = Plain(dropout=0.0), ConfidenceTracker(CLEAN)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    noisy = NoisyLoop(module, optimizer, [tracker], TRAIN_SET)
    for epoch in range(2):
        for x, y, index in DataLoader(IndexedDataset(TRAIN_SET), 8):
            logits = module(x)
            assert torch.equal(noisy.update(logits, y, index, epoch), y)
            F.cross_entropy(logits, y).backward()
            optimizer.step()
            optimizer.zero_grad()
        noisy.end_epoch()
    torch.manual_seed(0)
    same, seen = ForeignModule(dropout=0.0), ConfidenceTracker(CLEAN)
    same.configure_optimizers = lambda: torch.optim.SGD(same.parameters(), 0.1)
    same.training_step = lambda batch, batch_idx: same.criterion(same(batch[0]), batch[1])
    make_trainer(tmp_path, [seen], 2).fit(same, DataLoader(TRAIN_SET, 8))
    assert_same(tracker.history, seen.history)
