"""Projects that call a function of torch: their targets are changed as those of a criterion module."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, GradientSwitching, StepSeed
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import assert_same


class Functional(ForeignModule):
    """The ordinary project, but without a criterion module."""

    def __init__(self, **options):
        super().__init__(**options)
        del self.criterion

    def loss_of(self, logits, target):
        return F.cross_entropy(logits, target)

    def training_step(self, batch, batch_idx):
        return self.loss_of(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        assert _get_current_function_mode() is None


class AModule(ForeignModule):
    """The same with a criterion module, which a hook reaches."""

    def __init__(self, criterion=None, **options):
        super().__init__(**options)
        self.criterion = criterion or nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])


def loader():
    x, noisy, _ = make_tensors()
    return DataLoader(TensorDataset(x, noisy), 8, shuffle=True, generator=torch.Generator().manual_seed(0))


def fit(folder, module, *callbacks, **options):
    torch.manual_seed(0)
    made = module()
    selc = SELC(momentum=0.5)
    make_trainer(folder, [selc, *callbacks], **{"max_epochs": 3, **options}).fit(made, loader())
    return {"weights": made.state_dict(), "rows": selc.section.stores["target"].values}


class OwnModule(Functional):
    """Modules of torch call the functions; an attribute of any name will do."""

    def __init__(self):
        super().__init__()
        self.objective = nn.CrossEntropyLoss()

    def loss_of(self, logits, target):
        return self.objective(input=logits, target=target)


class LogProbabilities(Functional):
    def loss_of(self, logits, target):
        return F.nll_loss(logits.log_softmax(dim=1), target)


class WithoutGradient(Functional):
    """What it computes for the log is no criterion."""

    def loss_of(self, logits, target):
        with torch.no_grad():
            self.log("other", F.cross_entropy(logits.roll(1, 0), target.roll(1)))
        return F.cross_entropy(logits, target)


class InsideAModel(Functional):
    """As `transformers` do with ``labels=``."""

    def loss_of(self, logits, target):
        return nn.CrossEntropyLoss()(logits.view(-1, 4), target.view(-1))


@pytest.mark.parametrize("module", [Functional, OwnModule, LogProbabilities, WithoutGradient, InsideAModel])
def test_it_equals_a_criterion_module(tmp_path, module):
    torch.testing.assert_close(fit(tmp_path, module), fit(tmp_path, AModule), rtol=1e-6, atol=1e-7)


WEIGHT = torch.tensor([0.1, 4.0, 1.0, 0.5])


@pytest.mark.parametrize("options", [{"weight": WEIGHT}, {"label_smoothing": 0.2}, {"reduction": "sum"}])
def test_options_of_the_call_are_those_of_the_module(tmp_path, options):
    class Options(Functional):
        def loss_of(self, logits, target):
            return F.cross_entropy(logits, target, **options) / (8 if "reduction" in options else 1)

    class Module(AModule):
        def __init__(self):
            super().__init__(nn.CrossEntropyLoss(**options))
            self.criterion._non_persistent_buffers_set.add("weight")

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) / (8 if "reduction" in options else 1)

    torch.testing.assert_close(fit(tmp_path, Options), fit(tmp_path, Module), rtol=1e-6, atol=1e-7)


def test_a_module_that_is_found_or_a_function_that_is_named_wins(tmp_path):
    class Both(AModule):
        def training_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.extra = F.cross_entropy(logits, batch[1])
            return self.criterion(logits, batch[1])

    modes = []

    class Look(Callback):
        def on_after_backward(self, trainer, pl_module):
            modes.append((_get_current_function_mode(), float(pl_module.extra.detach())))

    assert_same(fit(tmp_path, Both, Look()), fit(tmp_path, AModule))
    assert {mode for mode, _ in modes} == {None}
    module = Both()
    selc = SELC(criterion="F.cross_entropy", momentum=0.5)
    make_trainer(tmp_path, [selc]).fit(module, loader())
    assert "target" in selc.section.stores


def test_the_mode_is_gone_after_an_exception(tmp_path):
    class Broken(Functional):
        def loss_of(self, logits, target):
            raise ZeroDivisionError

    trainer = make_trainer(tmp_path, [SELC()])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken(), loader())
    assert _get_current_function_mode() is None
    assert "training_step" not in vars(trainer.strategy)


def test_a_copy_inside_a_step_is_left_alone(tmp_path):
    class Copying(Functional):
        def training_step(self, batch, batch_idx):
            copy.deepcopy(self)
            return super().training_step(batch, batch_idx)

    assert_same(fit(tmp_path, Copying), fit(tmp_path, Functional))


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}])
def test_accumulation_and_precision(tmp_path, options):
    torch.testing.assert_close(
        fit(tmp_path, Functional, **options), fit(tmp_path, AModule, **options), rtol=1e-2, atol=1e-2
    )


def test_switching_and_trackers_resume_with_it(tmp_path):
    def run(epochs, ckpt_path=None):
        torch.manual_seed(0)
        module, members = Functional(dropout=0.3), [StepSeed(1), GradientSwitching(total_epochs=3), ConfidenceTracker()]
        trainer = make_trainer(tmp_path, members, epochs)
        x, noisy, _ = make_tensors()
        trainer.fit(module, DataLoader(TensorDataset(x, noisy), 8), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return {"weights": module.state_dict(), "history": members[-1].history}

    whole = run(3)
    run(2)
    assert_same(run(3, tmp_path / "2.ckpt"), whole)
    plain = ForeignModule(dropout=0.3)
    del plain.criterion
    plain.load_state_dict(torch.load(tmp_path / "3.ckpt", weights_only=True)["state_dict"], strict=True)


def of(loss):
    class Made(Functional):
        def loss_of(self, logits, target):
            return loss(self, logits, target)

    return Made()


def inside_a_checkpoint(self, logits, target):
    return checkpoint(lambda z: F.cross_entropy(z, target), logits, use_reentrant=False)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (inside_a_checkpoint, "inside a checkpointed region"),
        (
            lambda self, z, y: F.cross_entropy(z, y) + F.cross_entropy(z, y.roll(1)),
            "twice in a batch with different labels",
        ),
        (lambda self, z, y: F.cross_entropy(z, y, ignore_index=2), "`ignore_index` of `F.cross_entropy"),
        (lambda self, z, y: F.cross_entropy(z.view(2, 4, 4).transpose(1, 2), y.view(2, 4)), r"logits \(B, K\)"),
        (lambda self, z, y: F.cross_entropy(z[:5], y[:5]), "5 rows of logits, but the batch has 8 indices"),
        (
            lambda self, z, y: F.mse_loss(z, F.one_hot(y, 4).float()),
            "No training step has called `F.cross_entropy or F.nll",
        ),
    ],
)
def test_calls_that_cannot_be_changed_are_refused(tmp_path, loss, message):
    with pytest.raises(NoisyLabelError, match=message) as error:
        make_trainer(tmp_path, [SELC()]).fit(of(loss), loader())
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_what_is_compiled_around_the_call_is_changed_once(tmp_path):
    class Compiled(Functional):
        def __init__(self):
            super().__init__()
            self.compiled = [torch.compile(lambda z, y: F.cross_entropy(z, y), backend="eager")]

        def loss_of(self, logits, target):
            return self.compiled[0](logits, target)

    torch.testing.assert_close(fit(tmp_path, Compiled), fit(tmp_path, AModule), rtol=1e-6, atol=1e-7)


def fit_on_two(rank, folder):
    torch.manual_seed(0)
    module, selc = Functional(), SELC(momentum=0.5)
    dataset = TensorDataset(*make_tensors()[:2])
    loader = DataLoader(dataset, 4, sampler=DistributedSampler(dataset, 2, rank, shuffle=False))
    make_trainer(folder, [selc], devices=2, strategy="ddp").fit(module, loader)
    return {"weights": module.state_dict(), "rows": selc.section.stores["target"].values}


def test_two_processes_equal_one(pool, tmp_path):
    first, second = pool.run(fit_on_two, tmp_path)
    assert_same(first, second)
    torch.manual_seed(0)
    module, selc = Functional(), SELC(momentum=0.5)
    x, noisy, _ = make_tensors()
    make_trainer(tmp_path, [selc]).fit(module, DataLoader(TensorDataset(x, noisy), 8))
    torch.testing.assert_close(first["weights"], module.state_dict(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first["rows"], selc.section.stores["target"].values, rtol=1e-4, atol=1e-6)
