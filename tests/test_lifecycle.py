"""What else people do with a Trainer: fit again, test in between, search a learning rate, build the model late."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder
from lightning_utilities.core.imports import RequirementCache
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import SELC, LossMemory, StepSeed
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from lightning_noisy.data.batch import unpack_batch
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import EarlyLearningRegularization
from lightning_noisy.networks import MLP
from tests.foreign import ForeignModule, make_tensors, make_trainer, make_validation_loader
from tests.small import SmallDataModule, assert_same
from tests.small import make_module as small_module


def loader():
    x, noisy, _ = make_tensors()
    train_set = IndexedDataset(TensorDataset(x, noisy))
    return ResumableLoader(train_set, batch_size=8, sampler=EpochSampler(train_set, seed=3))


def make_module(module=NoisyLabelModule, loss=None, **options):
    torch.manual_seed(0)
    return module(MLP(6), LinearHead, loss or EarlyLearningRegularization(), 4, **options)


class Project(ForeignModule):
    def __init__(self):
        super().__init__()
        self.criterion = EarlyLearningRegularization()

    def training_step(self, batch, batch_idx):
        x, target, index = batch
        return self.criterion(self(x), target, index=index)

    def test_step(self, batch, batch_idx):
        self(batch[0])


@pytest.mark.parametrize("own", [True, False])
def test_a_test_and_a_second_fit_keep_what_losses_remember(tmp_path, own):
    module, callbacks = (make_module(), []) if own else (Project(), [LossMemory()])
    trainer = make_trainer(tmp_path, callbacks, max_epochs=2)
    trainer.fit(module, loader())
    loss = module.loss if own else module.criterion
    rows = loss.stores["prediction"].values.clone()
    trainer.test(module, make_validation_loader(), verbose=False)
    trainer.save_checkpoint(tmp_path / "tested.ckpt")
    sections = torch.load(tmp_path / "tested.ckpt", weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
    (saved,) = (section for key, section in sections.items() if key.startswith("loss "))
    assert torch.equal(saved["stores"]["prediction"]["values"], rows)

    trainer.fit_loop.max_epochs = 3
    trainer.limit_train_batches = 1
    trainer.fit(module, loader())
    moved = (loss.stores["prediction"].values != rows).any(dim=1)
    assert moved.sum() == 8
    make_trainer(tmp_path, callbacks, 1, limit_train_batches=1).fit(module, loader())
    assert (loss.stores["prediction"].values.sum(dim=1) > 0).sum() == 8  # another Trainer starts anew


def test_a_member_of_an_earlier_run_begins_without_a_past_where_the_checkpoint_has_none(tmp_path):
    plain = make_trainer(tmp_path, [StepSeed(1)], 1)
    plain.fit(ForeignModule(), loader())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    used = SELC(warmup_epochs=1)
    x, noisy, _ = make_tensors(20)
    other = IndexedDataset(TensorDataset(x, noisy))
    make_trainer(tmp_path, [used]).fit(ForeignModule(), DataLoader(other, batch_size=5))
    ends = []
    for selc in (SELC(warmup_epochs=1), used):
        module = ForeignModule()
        with pytest.warns(UserWarning, match=r"no state of SELC.*, which begins without a past"):
            make_trainer(tmp_path, [StepSeed(1), selc], 3).fit(module, loader(), ckpt_path=tmp_path / "plain.ckpt")
        ends.append({"weights": module.state_dict(), "targets": selc.targets, "history": selc.section.history})
    assert_same(*ends)


@pytest.mark.skipif(not RequirementCache("lightning>=2.6"), reason="Lightning 2.5.0 itself goes on otherwise after it")
def test_a_search_for_the_learning_rate_changes_nothing(tmp_path):
    def fit(callbacks):
        module = make_module()
        make_trainer(tmp_path, [StepSeed(1), *callbacks], enable_checkpointing=True).fit(module, loader())
        return {
            "weights": module.state_dict(),
            "history": module.history,
            "rows": module.loss.stores["prediction"].values,
        }

    class Later(LearningRateFinder):
        def on_fit_start(self, trainer, pl_module):
            pass

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.lr_find(trainer, pl_module)

    whole = fit([])
    for finder in (LearningRateFinder, Later):
        assert_same(fit([finder(num_training_steps=5, update_attr=False)]), whole)


def test_losses_that_are_made_late_have_stores(tmp_path):
    class Late(NoisyLabelModule):
        def configure_model(self):
            self.loss = EarlyLearningRegularization()

    module = make_module(Late, nn.CrossEntropyLoss())
    make_trainer(tmp_path).fit(module, loader())
    assert module.loss.stores["prediction"].values.any(dim=1).all()


def test_scoring_at_the_start_of_an_epoch_is_no_training(tmp_path):
    class Scoring(NoisyLabelModule):
        def prepare_epoch(self, epoch):
            batch = unpack_batch(next(iter(loader())))
            self.sample_losses(self.loss, self.network.outputs(batch.images), batch)

    def fit(module):
        frozen = make_module(module, nn.CrossEntropyLoss(), optimizer=lambda weights: torch.optim.SGD(weights, 0.0))
        make_trainer(tmp_path).fit(frozen, loader())
        return frozen.history

    assert fit(Scoring) == fit(NoisyLabelModule)


def test_loaders_of_your_own_go_by_their_own_names(tmp_path):
    trainer, module = make_trainer(tmp_path, limit_train_batches=1), small_module(nn.CrossEntropyLoss())
    data = SmallDataModule(val_fraction=0)
    trainer.fit(module, datamodule=data)
    loaders = data.val_dataloader()
    assert data.validation_splits == ("test",)
    (own,) = trainer.validate(module, loaders, verbose=False)
    (declared,) = trainer.validate(module, datamodule=data, verbose=False)
    measured = {f"test/{name}" for name in ("acc", "ece", "loss", "classes_predicted")}
    assert {name.replace("val/", "test/") for name in own} == set(declared) == measured
    assert "val/acc" in own


def test_members_are_set_up_once_and_a_stream_may_stand_beside(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.ones(3))

    class Counted(StepSeed):
        calls = 0

        def setup(self, *args, **kwargs):
            self.calls += 1
            super().setup(*args, **kwargs)

    class Two(ForeignModule):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["labeled"], batch_idx)

    member = Counted()
    trainer = make_trainer(tmp_path, [Callback(), member])
    trainer.fit(Two(), {"labeled": loader(), "stream": DataLoader(Stream(), batch_size=None)})
    assert (member.calls, trainer.global_step) == (1, 6)


def test_an_epoch_that_begins_again_counts_once(tmp_path):
    class Once(Callback):
        failed = False

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2 and not self.failed:
                self.failed = True
                raise ZeroDivisionError

    def frozen():
        return make_module(loss=nn.CrossEntropyLoss(), optimizer=lambda weights: torch.optim.SGD(weights, 0.0))

    whole = frozen()
    make_trainer(tmp_path, max_epochs=1).fit(whole, loader())
    broken, trainer = frozen(), make_trainer(tmp_path, [Once()], max_epochs=1)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(broken, loader())
    trainer.fit(broken, loader())
    assert broken.history == whole.history
