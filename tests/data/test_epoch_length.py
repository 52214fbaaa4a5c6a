"""Selections that change from epoch to epoch, under a real Trainer."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy.callbacks import SELC, StepSeed
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader, announce_length
from lightning_noisy.errors import NoisyLabelError
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import MemoryLogger, SmallDataModule, assert_same, make_module

SIZES = [40, 24, 17, 60, 8]
"""Samples of each epoch: fewer and fewer, some twice, fewer again. Epochs end at steps 5, 8, 11, 19 and 20."""


class Shrink(Callback):
    """Selects other samples at the start of each epoch."""

    def __init__(self, sizes=SIZES):
        self.sizes = sizes
        self.seen = {}
        self.validated = set()

    def on_train_start(self, trainer, module):
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer, module):
        trainer.datamodule.sampler.select(chosen(self.sizes, trainer.current_epoch))
        announce_length(trainer)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen[trainer.current_epoch, batch_idx] = batch[2].tolist()

    def on_validation_start(self, trainer, module):
        self.validated.add(trainer.current_epoch)

    def batches(self, epoch):
        return [indices for (e, _), indices in sorted(self.seen.items()) if e == epoch]


def chosen(sizes, epoch):
    return [(3 * epoch + i) % 40 for i in range(sizes[epoch])]


def run(folder, callback, ckpt_path=None, save=(), **options):
    torch.manual_seed(0)
    module, logger = make_module(nn.CrossEntropyLoss()), MemoryLogger()
    options = {"max_epochs": len(SIZES), "logger": logger, "num_sanity_val_steps": 0, **options}
    trainer = make_trainer(folder, [StepSeed(), callback, *save], **options)
    trainer.fit(module, datamodule=SmallDataModule(seed=0, batch_size=8), ckpt_path=ckpt_path)
    return trainer, module, logger


def test_each_epoch_visits_what_is_selected_and_ends_as_an_epoch_does(tmp_path):
    callback = Shrink()
    trainer, _, logger = run(tmp_path, callback)

    for epoch, size in enumerate(SIZES):
        batches = callback.batches(epoch)
        assert len(batches) == -(-size // 8)
        assert sorted(index for batch in batches for index in batch) == sorted(chosen(SIZES, epoch))
    assert callback.validated == set(logger.seen["val/acc"]) == set(range(len(SIZES)))
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    assert rate == pytest.approx(0.05 * 0.8 ** len(SIZES))  # the schedule has taken a step in each epoch


def test_limits_of_the_trainer_are_shares_of_the_epoch(tmp_path):
    callback = Shrink([40, 16, 60])
    run(tmp_path, callback, max_epochs=3, limit_train_batches=0.5, val_check_interval=0.5)

    assert [len(callback.batches(epoch)) for epoch in range(3)] == [2, 1, 4]
    assert callback.validated == {0, 1, 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run with a checkpoint of each step."""
    folder, callback = tmp_path_factory.mktemp("whole"), Shrink()
    save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    _, module, logger = run(folder, callback, save=[save], enable_checkpointing=True)
    return folder, callback.seen, module.state_dict(), logger.seen


@pytest.mark.parametrize("step", [2, 5, 6, 9, 11, 13, 18, 19])
def test_a_resume_equals_the_uninterrupted_run(tmp_path, whole, step):
    folder, seen, weights, metrics = whole
    callback = Shrink()
    _, module, logger = run(tmp_path, callback, folder / f"step={step}.ckpt")

    assert list(callback.seen.items()) == list(seen.items())[step:]
    assert_same(module.state_dict(), weights)
    for name in ("val/acc", "train/loss"):
        assert logger.seen[name][len(SIZES) - 1] == metrics[name][len(SIZES) - 1]


@pytest.mark.parametrize("options", [{}, {"reload_dataloaders_every_n_epochs": 1}])
def test_a_selection_at_the_end_of_an_epoch_is_that_of_the_next(tmp_path, options):
    class AtTheEnd(Shrink):
        def on_train_start(self, trainer, module):
            pass

        def on_train_epoch_start(self, trainer, module):
            pass

        def on_train_epoch_end(self, trainer, module):
            trainer.datamodule.sampler.select(chosen(self.sizes, min(trainer.current_epoch + 1, 2)))

    callback = AtTheEnd([40, 24, 60])
    run(tmp_path, callback, max_epochs=3, **options)

    assert [len(callback.batches(epoch)) for epoch in range(3)] == [5, 3, 8]
    assert callback.validated == {0, 1, 2}


def test_a_trainer_that_was_not_told_is_refused(tmp_path):
    """Our modules tell it themselves, also what a callback has selected."""

    class Silent(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                loader.sampler.select(range(16))

    x, noisy, _ = make_tensors()
    dataset = IndexedDataset(TensorDataset(x, noisy))
    loader = ResumableLoader(dataset, batch_size=8, sampler=EpochSampler(dataset))
    with pytest.raises(NoisyLabelError, match="have 2 batches in this epoch, but the Trainer counts 3: call"):
        make_trainer(tmp_path, [SELC(), Silent()]).fit(ForeignModule(), loader)
