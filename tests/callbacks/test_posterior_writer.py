from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, PosteriorWriter, StepSeed
from lightning_noisy.data import PMDNoise
from tests import test_ddp
from tests._dummies import DummyCIFAR10, isolate, needs_command_line, quiet
from tests.distributed import WORLD_SIZE, Pool
from tests.foreign import make_trainer
from tests.small import SmallDataModule, make_module
from tests.test_ddp import CLOSE, EPOCHS, SAMPLES, Fit

CONFIGS = Path(__file__).parents[2] / "configs"


def read(path):
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["index", "probabilities", "row"]
        assert (file["index"].dtype, file["probabilities"].dtype) == (np.int64, np.float32)
        return file["index"], file["probabilities"]


def fit(folder, max_epochs=3, callbacks=(), ckpt_path=None, **options):
    trainer = make_trainer(folder, [StepSeed(1), PosteriorWriter(), *callbacks], max_epochs, **options)
    data = SmallDataModule(seed=0, val_fraction=0.0)
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=data, ckpt_path=ckpt_path)
    return trainer


class Spy(Callback):
    """Logits that the criterion got last for each sample, and the order of the samples."""

    def __init__(self):
        self.logits, self.order = {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.index = batch[2].tolist()

    def on_train_start(self, trainer, pl_module):
        pl_module.loss.register_forward_pre_hook(self.note)

    def note(self, loss, args):
        self.order += self.index
        self.logits |= dict(zip(self.index, args[0].detach().double(), strict=True))


@pytest.mark.parametrize("others", [[], [SELC(momentum=0.5)]], ids=["alone", "beside SELC"])
def test_rows_are_the_last_training_outputs_in_the_order_of_the_data(tmp_path, others):
    spy = Spy()
    fit(tmp_path, callbacks=[spy, *others])
    index, probabilities = read(tmp_path / "posterior.npz")
    assert index.tolist() == list(range(48))
    expected = torch.stack([spy.logits[i] for i in range(48)]).softmax(dim=1)
    np.testing.assert_allclose(probabilities, expected.numpy(), rtol=1e-5, atol=1e-7)
    assert spy.order[:48] != sorted(spy.order[:48])
    assert len(spy.order) == 3 * 48


def test_a_resumed_run_writes_the_same_file(tmp_path):
    fit(tmp_path / "whole")
    fit(tmp_path / "parts", max_epochs=2).save_checkpoint(tmp_path / "two.ckpt")
    first = (tmp_path / "parts" / "posterior.npz").read_bytes()
    fit(tmp_path / "parts", ckpt_path=tmp_path / "two.ckpt")
    whole, resumed = (read(tmp_path / run / "posterior.npz")[1] for run in ("whole", "parts"))
    assert np.array_equal(whole, resumed)
    assert (tmp_path / "parts" / "posterior.npz").read_bytes() != first
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["posterior.npz"]


def test_the_file_lies_in_the_run_folder(tmp_path):
    fit(tmp_path, 1, logger=TensorBoardLogger(tmp_path, name="run"))
    assert (tmp_path / "run" / "version_0" / "posterior.npz").exists()


def test_samples_that_were_never_seen_are_not_made_up(tmp_path):
    with pytest.warns(UserWarning, match=r"PosteriorWriter writes no file: 32 of 48 samples were never seen"):
        fit(tmp_path, 1, limit_train_batches=2)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_dry_run_leaves_the_file_of_another_alone(tmp_path, recwarn):
    path = tmp_path / "posterior.npz"
    path.write_bytes(b"that of a real run")
    fit(tmp_path, 1, fast_dev_run=5)
    assert path.read_bytes() == b"that of a real run"
    fit(tmp_path, 1, fast_dev_run=1)
    assert not [w for w in recwarn if "PosteriorWriter" in str(w.message)]


def test_refused_path():
    with pytest.raises(NoisyLabelError, match=r"`path` to be the name of a \.npz file, but got 'posterior\.npy'"):
        PosteriorWriter("posterior.npy")


def fit_in_processes(rank, folder, processes=WORLD_SIZE):
    test_ddp.CASES["posterior"] = lambda foreign, n: (None, [PosteriorWriter(f"{folder}/{processes}.npz")])
    return test_ddp.fit(rank, Fit("posterior", foreign=False), processes)


def test_two_processes_write_what_one_writes(pool: Pool, tmp_path):
    running = pool.start(fit_in_processes, str(tmp_path))
    alone = fit_in_processes(0, str(tmp_path), processes=1)
    ranks = running()
    (index, one), (again, two) = read(tmp_path / "1.npz"), read(tmp_path / "2.npz")
    assert index.tolist() == again.tolist() == list(range(SAMPLES))
    np.testing.assert_allclose(two, one, rtol=CLOSE["rtol"], atol=CLOSE["atol"])
    last = [call for call in alone["calls"] if call["epoch"] == EPOCHS - 1]
    order = torch.cat([call["index"] for call in last])
    expected = torch.cat([call["logits"] for call in last]).softmax(dim=1)[order.argsort()]
    np.testing.assert_allclose(one, expected.numpy(), rtol=1e-5, atol=1e-7)
    assert all(len(rank["calls"]) == len(alone["calls"]) for rank in ranks)


@pytest.mark.slow
@needs_command_line
def test_one_command_trains_and_writes_and_a_second_takes_its_noise(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    small = ["--model.backbone", "lightning_noisy.networks.SmallCNN", "--model.backbone.in_channels", 3]
    small += ["--data.num_workers", 0, "--data.batch_size", 10, "--trainer.accelerator", "cpu"]
    fast = ["--model.optimizer.lr", 0.1, "--trainer.max_epochs", 20]
    quiet("fit", CONFIGS / "pmd" / "cifar10.yaml", *small, *fast)
    path = Path("runs/pmd/cifar10/version_0/posterior.npz")
    index, probabilities = read(path)
    assert index.tolist() == list(range(40))

    noise = ["--data.noise", "PMDNoise", "--data.noise.type", 1, "--data.noise.rate", 0.6]
    noise += ["--data.noise.posterior", path, "--trainer.max_epochs", 1]
    data = quiet("fit", CONFIGS / "selc" / "cifar10.yaml", *small, *noise).datamodule
    best_two = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    assert (best_two[:, 0] == data.clean_targets.numpy()).mean() > 0.5
    assert (data.noisy_targets.numpy()[:, None] == best_two).any(axis=1).all()
    expected = PMDNoise(1, 0.6, path).corrupt(data.clean_targets, 10, data.seed)
    assert torch.equal(data.noisy_targets, expected)
    assert 0.4 < data.realized_noise_rate < 0.8
