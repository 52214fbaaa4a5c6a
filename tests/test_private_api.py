"""What the package uses of others beyond their documented interface: a version without it fails here, by name."""

from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.compile import from_compiled
from torch import nn

from lightning_noisy import private_api
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer


def loader():
    x, noisy, _ = make_tensors()
    return make_loader(torch.utils.data.TensorDataset(x, noisy, torch.arange(24)))


def test_batches_begun_and_processed(tmp_path):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append((private_api.batches_begun(trainer), private_api.batches_processed(trainer)))

    trainer = make_trainer(tmp_path, [Look()])
    assert private_api.batches_begun(trainer) == 0
    trainer.fit(ForeignModule(), loader())
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 0), (5, 1), (6, 2)]


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({"every_n_train_steps": 3}, (3, None)),
        ({"every_n_epochs": 1}, (0, None)),
        ({"train_time_interval": timedelta(seconds=5)}, (0, timedelta(seconds=5))),
    ],
)
def test_checkpoint_interval(options, interval):
    assert private_api.checkpoint_interval(ModelCheckpoint(**options)) == interval


def test_is_compiled():
    in_place = nn.Linear(2, 2)
    in_place.compile()
    assert private_api.is_compiled(torch.compile(nn.Linear(2, 2)))
    assert private_api.is_compiled(in_place)
    assert private_api.is_compiled(from_compiled(torch.compile(ForeignModule())))
    assert not private_api.is_compiled(nn.Linear(2, 2))


def test_calling_module(tmp_path):
    found = []

    class Asking(ForeignModule):
        def training_step(self, batch, batch_idx):
            found.append(self.ask())
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            found.append(self.ask())

        def ask(self):
            return private_api.calling_module()

    module = Asking()
    assert module.ask() is None
    make_trainer(tmp_path, max_epochs=1).fit(module, loader(), loader())
    assert found == [module] * 3 + [None] * 3
    assert module.ask() is None
