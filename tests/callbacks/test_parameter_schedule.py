"""Numbers of callbacks under a schedule, whatever the order of the callbacks."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, MaskRefresh, MaskTracker, ParameterSchedule
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer

EPOCHS, BATCHES = 4, 3


class Reader(Callback):
    """Has a number, and notes it when a batch starts."""

    def __init__(self):
        self.number = 7.0
        self.whole = 3
        self.flag = True
        self.word = "high"
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(self.number)


def loader():
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(TensorDataset(x, noisy)))


def resumable_loader():
    x, noisy, _ = make_tensors()
    dataset = IndexedDataset(TensorDataset(x, noisy))
    return ResumableLoader(dataset, batch_size=8, sampler=EpochSampler(dataset, seed=3))


def expected(interval):
    epochs = torch.arange(EPOCHS * BATCHES) / BATCHES
    return (0.2 + 0.8 * (epochs.floor() if interval == "epoch" else epochs) / EPOCHS).tolist()


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("first", ["schedule", "reader"])
def test_a_callback_reads_the_value_of_its_batch(tmp_path, first, interval):
    reader, schedule = Reader(), ParameterSchedule("Reader.number", 0.2, 1.0, interval=interval)
    callbacks = [schedule, reader] if first == "schedule" else [reader, schedule]
    make_trainer(tmp_path, callbacks, EPOCHS).fit(ForeignModule(), loader())
    assert reader.seen == pytest.approx(expected(interval))


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("first", ["schedule", "reader"])
@pytest.mark.parametrize("step", [2, 3, 4, 6])
def test_also_from_the_first_batch_of_a_resume_on(tmp_path, first, interval, step):
    def run(checkpoint=(), ckpt_path=None):
        reader, schedule = Reader(), ParameterSchedule("Reader.number", 0.2, 1.0, interval, total_epochs=EPOCHS)
        callbacks = [schedule, reader] if first == "schedule" else [reader, schedule]
        options = {"enable_checkpointing": bool(checkpoint)}
        make_trainer(tmp_path, [*callbacks, *checkpoint], EPOCHS, **options).fit(
            ForeignModule(), resumable_loader(), ckpt_path=ckpt_path
        )
        return reader.seen

    run([ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)])
    assert run(ckpt_path=tmp_path / f"step={step}.ckpt") == pytest.approx(expected(interval)[step:])


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("first", ["schedule", "mask"])
def test_the_ratio_of_masking_moves(tmp_path, first, interval):
    """Eight classes, so that every eighth of the ratio shows."""
    kept = []

    class Watch(Callback):
        def on_after_backward(self, trainer, pl_module):
            kept.append(pl_module.classifier.edge_mask.mean().item())

    schedule = ParameterSchedule("MaskRefresh.ratio", 0.2, 1.0, interval=interval)
    mask = MaskRefresh("classifier", ratio=0.1)
    tracker = MaskTracker("classifier")
    callbacks = [schedule, mask] if first == "schedule" else [mask, schedule]
    make_trainer(tmp_path, [*callbacks, tracker, Watch()], EPOCHS).fit(ForeignModule(num_classes=8), loader())
    assert kept == [1 - int(8 * ratio + 1e-6) / 8 for ratio in expected(interval)]
    assert len(set(kept)) > 3


def test_a_submodule_of_that_name_goes_first(tmp_path):
    class Named(ForeignModule):
        def __init__(self):
            super().__init__()
            self.Reader = nn.Dropout(0.5)
            self.Reader.number = 1.0

    module, reader = Named(), Reader()
    make_trainer(tmp_path, [reader, ParameterSchedule("Reader.number", 2.0, 2.0)]).fit(module, loader())
    assert (module.Reader.number, reader.number) == (2.0, 7.0)


class Twin(Reader):
    """Another class, though it is a reader too."""


def test_the_class_itself_counts(tmp_path):
    reader, twin = Reader(), Twin()
    schedules = [ParameterSchedule("Reader.number", 1.0, 1.0), ParameterSchedule("Twin.whole", 5.0, 5.0)]
    make_trainer(tmp_path, [twin, *schedules, reader]).fit(ForeignModule(), loader())
    assert (reader.number, twin.number) == (1.0, 7.0)
    assert (reader.whole, twin.whole) == (3, 5.0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("Reader.missing", "there is no number `missing` on `Reader`"),
        ("Reader.flag", "there is no number `flag` on `Reader`"),
        ("Reader.word", "there is no number `word` on `Reader`"),
        ("Nobody.number", "ForeignModule has no submodule `Nobody`, and the Trainer has no callback of that class"),
        ("reader.number", "ForeignModule has no submodule `reader`, and the Trainer has no callback of that class"),
        (
            "Twin.number",
            "ForeignModule has no submodule `Twin`, and the Trainer has 2 callbacks of that class",
        ),
        ("SELC.section.number", "ForeignModule has no submodule `SELC.section`, and the Trainer has no callback"),
        ("body.number", "there is no number `number` on `body`"),
    ],
)
def test_what_cannot_be_scheduled(tmp_path, target, message):
    callbacks = [Reader(), Twin(), Twin(), SELC(), ParameterSchedule(target, 0.0, 1.0)]
    trainer = make_trainer(tmp_path, callbacks)
    with pytest.raises(NoisyLabelError, match=f"Cannot schedule `{target}`: {message}") as caught:
        trainer.fit(ForeignModule(), loader())
    assert "\n" not in str(caught.value)
    assert trainer.global_step == 0
