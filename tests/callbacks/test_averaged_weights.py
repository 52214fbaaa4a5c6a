"""Averages against numpy means, batch-norm statistics against a pass of our own, in one process and in two."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import AveragedWeights, StepSeed
from lightning_noisy.data import EpochSampler, IndexedDataset
from tests.distributed import WORLD_SIZE
from tests.foreign import SHARDING, ForeignModule, make_loader, make_tensors, make_trainer
from tests.optim.test_sharpness_aware import Pretend
from tests.small import MemoryLogger, SmallDataModule, make_module


class Normed(ForeignModule):
    def __init__(self, dropout=0.0):
        super().__init__(dropout=dropout)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())


class Watch(Callback):
    """Parameters at the end of each epoch, and what validation sees."""

    def __init__(self):
        self.ends, self.validated, self.trained = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_last_batch:
            self.ends.append([p.detach().clone().double().numpy() for p in pl_module.parameters()])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.trained.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, *rest):
        self.validated.append(copy.deepcopy(pl_module.state_dict()))
        assert not pl_module.training


def data(repeats=1):
    x, noisy, _ = make_tensors()
    return IndexedDataset(TensorDataset(x.repeat(repeats, 1).double(), noisy.repeat(repeats)))


def validation():
    return DataLoader(
        TensorDataset(*(t.double() if t.is_floating_point() else t for t in make_tensors(seed=1)[::2])), 24
    )


def means_of(ends, names):
    return dict(zip(names, (np.mean(values, axis=0) for values in zip(*ends, strict=True)), strict=True))


@pytest.mark.parametrize("most", [None, 2, 9])
def test_validation_sees_the_mean_with_statistics_of_its_own(tmp_path, most):
    torch.manual_seed(0)
    module, watch, callback = Normed().double(), Watch(), AveragedWeights(start_epoch=1, refresh_batches=most)
    trainer = make_trainer(tmp_path, [callback, watch], max_epochs=4)
    trainer.fit(module, make_loader(data()), validation())
    stream = torch.get_rng_state()
    torch.manual_seed(0)
    make_trainer(tmp_path, max_epochs=4).fit(Normed().double(), make_loader(data()), validation())
    assert torch.equal(stream, torch.get_rng_state())
    names = [name for name, _ in module.named_parameters()]
    assert len(watch.validated) == 4
    for name, end in zip(names, watch.ends[0], strict=True):
        np.testing.assert_array_equal(watch.validated[0][name], end)
    for epoch in (1, 2, 3):
        for name, mean in means_of(watch.ends[1 : epoch + 1], names).items():
            np.testing.assert_allclose(watch.validated[epoch][name], mean, rtol=1e-10)
        for begun, end in zip(watch.trained[epoch][names[0]], watch.ends[epoch - 1][0], strict=True):
            np.testing.assert_array_equal(begun, end)  # training went on with its own weights
    assert callback.num_averaged == 3
    shown = module.state_dict()
    torch.testing.assert_close(dict(shown), dict(watch.validated[-1]), rtol=0, atol=0)
    # Batches of 8 of 24: the mean of all, and the mean of the batches' unbiased variances.
    sampler = EpochSampler(data(), seed=0)
    sampler.set_epoch(3)
    order = [int(i) for i in sampler]
    hidden = make_tensors()[0].double().numpy() @ shown["body.0.weight"].numpy().T + shown["body.0.bias"].numpy()
    batches = [hidden[order[i : i + 8]] for i in range(0, 24, 8)][:most]
    np.testing.assert_allclose(shown["body.1.running_mean"], np.concatenate(batches).mean(0), rtol=1e-9)
    variance = np.mean([batch.var(0, ddof=1) for batch in batches], axis=0)
    np.testing.assert_allclose(shown["body.1.running_var"], variance, rtol=1e-9)


def test_own_statistics_stay_without_a_refresh(tmp_path):
    module, watch = Normed().double(), Watch()
    callback = AveragedWeights(0, refresh_batch_norm=False)
    make_trainer(tmp_path, [callback, watch], max_epochs=2).fit(module, make_loader(data()), validation())
    ours = watch.validated[1]["body.1.running_mean"]
    own = {key: value for key, value in module.state_dict().items() if "running" in key}
    assert ours.equal(own["body.1.running_mean"])
    assert int(watch.validated[1]["body.1.num_batches_tracked"]) == 6


def run(folder, start=1, max_epochs=4, ckpt_path=None, every=None, extra=()):
    torch.manual_seed(0)
    module, logger, callback = make_module(nn.CrossEntropyLoss()), MemoryLogger(), AveragedWeights(start)
    save = (
        [] if every is None else [ModelCheckpoint(folder, filename="{step}", every_n_train_steps=every, save_top_k=-1)]
    )
    trainer = make_trainer(
        folder, [StepSeed(1), callback, *extra, *save], max_epochs, logger=logger, enable_checkpointing=bool(save)
    )
    trainer.fit(module, datamodule=SmallDataModule(seed=0), ckpt_path=ckpt_path)
    return module, trainer, callback, logger.seen


@pytest.mark.parametrize("step", [7, 10, 12])
def test_a_resume_is_exact_and_a_test_sees_the_average(tmp_path, step):
    whole, _, callback, seen = run(tmp_path, every=1)
    path = tmp_path / f"step={step}.ckpt"
    torch.load(path, weights_only=True)
    resumed, trainer, again, rest = run(tmp_path, ckpt_path=path)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(again.state_dict()["average"], callback.state_dict()["average"], rtol=0, atol=0)
    assert rest["val/acc"][3] == seen["val/acc"][3]
    module = make_module(nn.CrossEntropyLoss(), seed=1)
    tested = make_trainer(tmp_path, [AveragedWeights(1)])
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    (figures,) = tested.test(module, datamodule=SmallDataModule(seed=0), ckpt_path=tmp_path / "end.ckpt")
    assert figures["test/acc"] == pytest.approx(seen["test/acc"][3])
    torch.testing.assert_close(module.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_two_epochs_and_then_four(tmp_path):
    """A checkpoint after training holds the weights that training goes on with."""
    whole = run(tmp_path)[0]
    _, trainer, _, _ = run(tmp_path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = run(tmp_path, ckpt_path=tmp_path / "two.ckpt")[0]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_test_between_takes_nothing_from_what_training_goes_on_with(tmp_path):
    whole = run(tmp_path)[0]
    watch = Watch()
    module, trainer, callback, _ = run(tmp_path, max_epochs=2, extra=[watch])
    average = copy.deepcopy(module.state_dict())
    trainer.test(module, datamodule=SmallDataModule(seed=0), verbose=False)
    torch.testing.assert_close(module.state_dict(), average, rtol=0, atol=0)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed = run(tmp_path, ckpt_path=tmp_path / "two.ckpt")[0]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, datamodule=SmallDataModule(seed=0))  # goes on with its own weights, and the average of three
    own = torch.load(tmp_path / "two.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(dict(watch.trained[2]), dict(own), rtol=0, atol=0)
    assert callback.num_averaged == 3


def test_copies_and_later_fits_begin_anew(tmp_path):
    _, _, callback, _ = run(tmp_path, max_epochs=2)
    assert callback.num_averaged == 1
    assert copy.deepcopy(callback).num_averaged == 0
    module = Normed().double()
    make_trainer(tmp_path, [callback], max_epochs=1).fit(module, make_loader(data()), validation())
    assert callback.num_averaged == 0


class Stream(IterableDataset):
    def __iter__(self):
        x, noisy, _ = make_tensors()
        return iter(zip(x.double(), noisy, range(24), strict=True))


class Dicts(Normed):
    def training_step(self, batch, batch_idx):
        return super().training_step((batch["x"], batch["y"], None), batch_idx)


class DictData(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return {"x": x, "y": y}


def test_refusals(tmp_path):
    with pytest.raises(NoisyLabelError, match="`start_epoch`"):
        AveragedWeights(-1)
    fit = partial(make_trainer, tmp_path, max_epochs=1)
    with pytest.raises(NoisyLabelError, match="is a stream: set refresh_batch_norm=False"):
        fit([AveragedWeights(0)]).fit(Normed().double(), DataLoader(Stream(), 8), validation())
    x, noisy, _ = make_tensors()
    with pytest.raises(NoisyLabelError, match="found dict: set refresh_batch_norm=False"):
        fit([AveragedWeights(0)]).fit(Dicts().double(), make_loader(DictData(x.double(), noisy)), validation())
    fit([AveragedWeights(0, False)]).fit(Dicts().double(), make_loader(DictData(x.double(), noisy)), validation())
    trainer = fit([AveragedWeights(0)])
    Pretend(SHARDING[0]).on_train_start(trainer, None)
    with pytest.raises(NoisyLabelError, match="cannot average under"):
        trainer.fit(Normed().double(), make_loader(data()))


def fit_process(rank, processes):
    torch.manual_seed(0)
    module, callback = Normed().double(), AveragedWeights(0)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=2,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, make_loader(data(), 24 // processes), validation())
    return module.state_dict()


def test_two_processes_share_the_pass(pool):
    """Statistics are those over the batches of both; the weights differ from one process's by batch norm alone."""
    first, second = pool.run(fit_process, WORLD_SIZE)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    hidden = make_tensors()[0].double().numpy() @ first["body.0.weight"].numpy().T + first["body.0.bias"].numpy()
    np.testing.assert_allclose(first["body.1.running_mean"], hidden.mean(0), rtol=1e-9)
    sampler = EpochSampler(data(), 1, 0, seed=0)
    sampler.set_epoch(1)
    order = [int(i) for i in sampler]
    variance = np.mean([hidden[order[rank::2]].var(0, ddof=1) for rank in range(2)], axis=0)
    np.testing.assert_allclose(first["body.1.running_var"], variance, rtol=1e-9)
