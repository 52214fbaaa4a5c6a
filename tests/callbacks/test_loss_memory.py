"""Losses with memory in anybody's project: their rows are made, saved, merged and refused as in our module."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_noisy import NoisyLabelError, SampleStore
from lightning_noisy.callbacks import LossMemory, StepSeed
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.losses import ActivePassiveLoss, EarlyLearningRegularization, MeanAbsoluteError
from lightning_noisy.state import RunDriver
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, assert_same, make_module

SAMPLES, CLASSES, MOMENTUM = 24, 4, 0.6


def elr():
    return EarlyLearningRegularization(lam=1.0, momentum=MOMENTUM)


class Project(ForeignModule):
    """Passes the index to its criterion, and notes what the criterion gets."""

    def __init__(self, loss=None, dropout=0.0):
        super().__init__(dropout=dropout)
        self.criterion = loss or elr()
        self.calls = []

    def training_step(self, batch, batch_idx):
        x, target, index = batch
        logits = self(x)
        self.calls.append((index.numpy(), logits.detach().double().numpy()))
        return self.criterion(logits, target, index=index)


def loader(samples=SAMPLES):
    x, noisy, _ = make_tensors(samples)
    train_set = IndexedDataset(TensorDataset(x, noisy))
    return ResumableLoader(train_set, batch_size=8, sampler=EpochSampler(train_set, seed=3))


def recursion(calls):
    rows = np.zeros((SAMPLES, CLASSES))
    for index, logits in calls:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = np.clip(powers / powers.sum(axis=1, keepdims=True), 1e-4, 1 - 1e-4)
        rows[index] = MOMENTUM * rows[index] + (1 - MOMENTUM) * p / p.sum(axis=1, keepdims=True)
    return rows


def rows_of(trainer, name="prediction"):
    return RunDriver.of(trainer).sections["loss criterion"].stores[name].values


def test_rows_are_those_of_the_recursion(tmp_path):
    module, trainer = Project(), make_trainer(tmp_path, [LossMemory()], max_epochs=3)
    trainer.fit(module, loader())
    np.testing.assert_allclose(rows_of(trainer), recursion(module.calls), rtol=1e-4, atol=1e-6)
    assert module.criterion.stores["prediction"].values is rows_of(trainer)
    assert not module.criterion._forward_pre_hooks


@pytest.mark.parametrize("step", [4, 6])
def test_a_resume_equals_an_uninterrupted_run(tmp_path, step):
    def fit(ckpt_path=None):
        torch.manual_seed(0)
        module = Project(dropout=0.3)
        every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(tmp_path, [StepSeed(1), LossMemory(), every], 3, enable_checkpointing=True)
        trainer.fit(module, loader(), ckpt_path=ckpt_path)
        return {"rows": rows_of(trainer), "weights": module.state_dict()}

    whole = fit()
    kept = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
    torch.save(kept, tmp_path / "kept.ckpt")
    assert "criterion.prediction" not in kept["state_dict"]
    assert_same(whole, fit(tmp_path / "kept.ckpt"))


def test_without_the_line_a_fit_is_refused_also_with_a_table_by_hand(tmp_path):
    attached = Project()
    attached.criterion.stores["prediction"] = SampleStore(SAMPLES, (CLASSES,))
    for module in (Project(), attached):
        with pytest.raises(
            NoisyLabelError, match=r"nobody would save or merge here: add the callback `LossMemory\(\)`"
        ):
            make_trainer(tmp_path).fit(module, loader())
        assert not module.criterion.stores or not module.criterion.stores["prediction"].values.any()


def test_a_loop_of_ones_own_attaches_by_hand():
    module = Project()
    with pytest.raises(NoisyLabelError, match=r"in a loop of your own give the loss to `NoisyLoop\(criterion=...\)`"):
        module.training_step(next(iter(loader())), 0)
    module.criterion.stores["prediction"] = SampleStore(SAMPLES, (CLASSES,))
    module.calls.clear()
    for batch in loader():
        module.training_step(batch, 0)
    rows = module.criterion.stores["prediction"].values
    np.testing.assert_allclose(rows, recursion(module.calls), rtol=1e-4, atol=1e-6)


def test_parts_of_a_loss_keep_their_rows_too(tmp_path):
    module = Project(ActivePassiveLoss(elr(), MeanAbsoluteError(), 1.0, 1.0))
    trainer = make_trainer(tmp_path, [LossMemory()])
    trainer.fit(module, loader())
    np.testing.assert_allclose(rows_of(trainer, "active.prediction"), recursion(module.calls), rtol=1e-4, atol=1e-6)


def test_rows_of_another_training_set_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, [LossMemory()], max_epochs=1)
    trainer.fit(Project(), loader())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(NoisyLabelError, match="belongs to 24 training samples, this run has 32"):
        make_trainer(tmp_path, [LossMemory()]).fit(Project(), loader(32), ckpt_path=tmp_path / "one.ckpt")


def test_a_fresh_fit_of_the_same_loss_starts_with_empty_rows(tmp_path):
    module = Project()
    make_trainer(tmp_path, [LossMemory()], max_epochs=1).fit(module, loader())
    module.calls.clear()
    trainer = make_trainer(tmp_path, [LossMemory()], max_epochs=1)
    trainer.fit(module, loader())
    np.testing.assert_allclose(rows_of(trainer), recursion(module.calls), rtol=1e-4, atol=1e-6)


def test_a_copy_taken_in_training_does_not_write_into_the_rows_of_the_original(tmp_path):
    copies = []

    class Copier(Callback):
        def on_train_start(self, trainer, pl_module):
            copies.append(copy.deepcopy(pl_module))

    trainer = make_trainer(tmp_path, [LossMemory(), Copier()], max_epochs=1)
    trainer.fit(Project(), loader())
    kept, (twin,) = rows_of(trainer).clone(), copies
    twin.criterion.stores["prediction"] = SampleStore(SAMPLES, (CLASSES,))
    for batch in loader():
        twin.training_step(batch, 0)
    assert torch.equal(rows_of(trainer), kept)
    assert twin.criterion.stores["prediction"].values.any()


def test_it_has_nothing_to_do_in_our_module_and_where_no_loss_keeps_rows(tmp_path):
    trainer = make_trainer(tmp_path, [LossMemory()], max_epochs=1)
    trainer.fit(make_module(elr()), datamodule=SmallDataModule(seed=0))
    assert [key for key in RunDriver.of(trainer).sections if key.startswith("loss")] == ["loss loss"]
    with pytest.warns(UserWarning, match="LossMemory does nothing: no loss of ForeignModule needs a store"):
        make_trainer(tmp_path, [LossMemory()], max_epochs=1).fit(ForeignModule(), loader())


def fit_on(rank, folder, processes):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = Project().double()
    x, noisy, _ = make_tensors()
    train_set = IndexedDataset(TensorDataset(x.double(), noisy))
    # Under DDP Lightning puts its own sampler in, which shuffles; a single process gets the same order here.
    sampler = DistributedSampler(train_set, 1, 0, shuffle=True, seed=0) if processes == 1 else None
    ddp = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    trainer = make_trainer(folder, [LossMemory()], 2, precision="64-true", **ddp)
    trainer.fit(module, DataLoader(train_set, 8 // processes, sampler=sampler))
    return rows_of(trainer)


def test_two_processes_keep_the_rows_of_one(pool, tmp_path):
    ranks = pool.run(fit_on, str(tmp_path), 2)
    alone = fit_on(0, str(tmp_path), 1)
    for rows in ranks:
        torch.testing.assert_close(rows, alone, rtol=1e-5, atol=1e-7)
    assert alone.any(dim=1).all()


def test_evaluation_reads_and_does_not_write(tmp_path):
    module, trainer = Project(), make_trainer(tmp_path, [LossMemory()], max_epochs=1)
    trainer.fit(module, loader())
    kept = rows_of(trainer).clone()
    module.eval()
    x, noisy, _ = make_tensors()
    for batch in make_loader(IndexedDataset(TensorDataset(x, noisy))):
        module.training_step(batch, 0)
    assert torch.equal(rows_of(trainer), kept)
