"""A training step reads nothing back from tensors, so that no accelerator has to wait; tried on the CPU.

Every way in which Python gets a number out of a tensor is watched between the start and the end of a batch, except in
the first batch of an epoch, where once-only checks are, and in batches whose values are logged.
"""

import sys

import pytest
import torch
from lightning.pytorch import Callback

from lightning_noisy.callbacks import StepSeed
from lightning_noisy.heads import LinearHead
from tests.foreign import make_trainer
from tests.modules.strategies import STRATEGIES, ViewsDataModule, make_strategy
from tests.small import SmallDataModule, make_module
from tests.test_gpu import METHODS

READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")
ON_THE_CPU_ALONE = ("functional/masks.py", "functional/random.py", "callbacks/mask_rule.py", "checks.py")
"""What has a branch for tensors of the CPU, which can be looked at for nothing."""
SIZES_OF_BATCHES = {
    "CoTeachingPlus": {"modules/co_teaching_plus.py", "modules/small_loss.py"},
    "DISC": {"modules/disc.py"},
    "CoLDL": {"modules/co_ldl.py"},
}
"""Strategies that ask how many samples they have chosen: so many go through the network once more, or are ranked."""


class Watch(Callback):
    """Notes which files of the package read something back."""

    def __init__(self, monkeypatch):
        self.files, self.active, self.batches = set(), False, 0
        for name in READS:
            monkeypatch.setattr(torch.Tensor, name, self._watched(getattr(torch.Tensor, name)))

    def _watched(self, read):
        def reading(tensor, *args, **kwargs):
            if self.active:
                frame = sys._getframe(1)
                while frame is not None and "/lightning_noisy/" not in frame.f_code.co_filename:
                    frame = frame.f_back
                if frame is not None:
                    self.files.add(frame.f_code.co_filename.rsplit("/lightning_noisy/", 1)[1])
            return read(tensor, *args, **kwargs)

        return reading

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.active = 0 < batch_idx < trainer.num_training_batches - 1
        self.batches += self.active


class Stop(Callback):
    """The last callback, at the end of a batch."""

    def __init__(self, watch):
        self.watch = watch

    def on_train_batch_end(self, *_):
        self.watch.active = False


def files_that_read(monkeypatch, folder, module, data, callbacks):
    watch = Watch(monkeypatch)
    callbacks = [watch, *callbacks, Stop(watch)]
    make_trainer(folder, callbacks, max_epochs=3, log_every_n_steps=1000).fit(module, datamodule=data)
    assert watch.batches > 3
    return watch.files - set(ON_THE_CPU_ALONE)


@pytest.mark.parametrize("method", METHODS)
def test_no_callback_or_loss_reads_back(monkeypatch, tmp_path, method):
    loss, callbacks, *head = METHODS[method]
    module = make_module(loss(), head=(head or [LinearHead])[0])
    assert files_that_read(monkeypatch, tmp_path, module, SmallDataModule(seed=0), callbacks()) == set()


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_reads_back_but_for_sizes(monkeypatch, tmp_path, name):
    data = ViewsDataModule(views=STRATEGIES[name].views, seed=0)
    found = files_that_read(monkeypatch, tmp_path, make_strategy(name), data, [StepSeed(0)])
    assert found == SIZES_OF_BATCHES.get(name, set())
