"""Kept edges, turnover and the map of a masked head, against sums over the masks that were there."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import MaskRefresh, MaskTracker
from lightning_noisy.data import IndexedDataset
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

EDGES = (4, 8)


class SetMasks(Callback):
    """Gives the classifier masks of its own in each batch; ``None`` where ``masks(step)`` says so."""

    def __init__(self, masks):
        self.masks = masks
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.mask = self.masks(len(self.seen))
        pl_module.classifier.edge_mask = self.mask

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append((trainer.current_epoch, self.mask))
        pl_module.classifier.edge_mask = None


def random_mask(step, share=0.4):
    return (torch.rand(EDGES, generator=torch.Generator().manual_seed(step)) > share).float()


def loader(batch_size=8, dtype=torch.float32):
    x, noisy, _ = make_tensors()
    return make_loader(IndexedDataset(TensorDataset(x.to(dtype), noisy)), batch_size)


def oracle(seen, path="mask"):
    """Figures of each epoch and the map, by hand in float64."""
    ones = np.ones(EDGES)
    masks = [ones if mask is None else mask.double().numpy() for _, mask in seen]
    history = {}
    for epoch in sorted({epoch for epoch, _ in seen}):
        steps = [step for step, (e, _) in enumerate(seen) if e == epoch]
        figures = {"kept": [masks[step].mean() for step in steps]}
        figures["turnover"] = [(masks[step] != masks[step - 1]).mean() for step in steps if step > 0]
        history[epoch] = {f"{path}/{name}": float(np.mean(values)) for name, values in figures.items() if values}
    return history, np.mean(masks, axis=0)


def assert_equals(tracker, seen, path="mask/classifier"):
    history, kept = oracle(seen, path)
    assert tracker.history.keys() == history.keys()
    for epoch, figures in history.items():
        assert tracker.history[epoch] == pytest.approx(figures, abs=1e-12), epoch
    assert tracker.kept_share.shape == EDGES
    np.testing.assert_allclose(tracker.kept_share.numpy(), kept, rtol=1e-6)


PATTERNS = {
    "always": random_mask,
    "never at first": lambda step: None if step < 4 else random_mask(step),
    "now and then": lambda step: random_mask(step) if step % 3 == 1 else None,
    "not at the end": lambda step: None if step > 4 else random_mask(step),
    "the same": lambda step: random_mask(0),
    "other shares": lambda step: random_mask(step, share=step / 10),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_step_counts(tmp_path, pattern):
    masks, tracker = SetMasks(PATTERNS[pattern]), MaskTracker("classifier")
    trainer = make_trainer(tmp_path, [tracker, masks], max_epochs=3)
    trainer.fit(ForeignModule(), loader())
    assert len(masks.seen) == 9
    assert_equals(tracker, masks.seen)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("mask/")}
    assert logged == pytest.approx(tracker.history[2])


def test_the_first_step_of_all_has_no_turnover(tmp_path):
    tracker = MaskTracker("classifier")
    make_trainer(tmp_path, [SetMasks(random_mask), tracker], max_epochs=2).fit(ForeignModule(), loader(24))
    assert [set(figures) for figures in tracker.history.values()] == [
        {"mask/classifier/kept"},
        {"mask/classifier/kept", "mask/classifier/turnover"},
    ]


@pytest.mark.parametrize("first", ["tracker", "refresh"])
@pytest.mark.parametrize("score", ["magnitude", "random", "std"])
def test_reads_what_mask_refresh_masks(tmp_path, first, score):
    class Watch(Callback):
        def __init__(self):
            self.seen = []

        def on_after_backward(self, trainer, pl_module):
            self.seen.append((trainer.current_epoch, pl_module.classifier.edge_mask.clone()))

    tracker, watch = MaskTracker("classifier"), Watch()
    refresh = MaskRefresh("classifier", ratio=0.5, score=score)
    callbacks = [tracker, refresh] if first == "tracker" else [refresh, tracker]
    make_trainer(tmp_path, [*callbacks, watch], max_epochs=3).fit(ForeignModule(), loader())
    assert_equals(tracker, watch.seen)
    assert all(figures["mask/classifier/kept"] == 0.5 for figures in tracker.history.values())


def test_gradient_accumulation_is_one_step(tmp_path):
    masks, tracker = SetMasks(random_mask), MaskTracker("classifier")
    make_trainer(tmp_path, [masks, tracker], accumulate_grad_batches=2).fit(ForeignModule(), loader(4))
    assert len(masks.seen) == 12
    assert_equals(tracker, masks.seen[1::2])


class TwoOptimizers(ForeignModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.2) for part in (self.body, self.classifier)]

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.criterion(self(batch[0]), batch[1]))
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()


def test_steps_of_other_optimizers_do_not_count(tmp_path):
    masks, tracker = SetMasks(random_mask), MaskTracker("classifier")
    make_trainer(tmp_path, [masks, tracker]).fit(TwoOptimizers(), loader())
    assert len(masks.seen) == 6
    assert_equals(tracker, masks.seen)


def test_a_head_that_is_never_masked_keeps_everything(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    tracker = MaskTracker("classifier", figure_every_n_epochs=1)
    make_trainer(tmp_path, [tracker], logger=logger).fit(ForeignModule(), loader())
    assert list(tracker.history.values()) == [{"mask/classifier/kept": 1.0, "mask/classifier/turnover": 0.0}] * 2
    assert tracker.kept_share is None
    assert not list(tmp_path.rglob("*.png"))


def test_heads_keep_apart(tmp_path):
    class TwoHeads(ForeignModule):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.classifier(self.body(x)) + self.head(self.body(x))

    logger = TensorBoardLogger(tmp_path, name="run")
    trackers = MaskTracker(), MaskTracker("classifier")
    refresh = [MaskRefresh("head", ratio=0.25), MaskRefresh("classifier", ratio=0.5)]
    make_trainer(tmp_path, [*trackers, *refresh], logger=logger).fit(TwoHeads(), loader())
    assert trackers[0].history[1]["mask/kept"] == 0.75
    assert trackers[1].history[1]["mask/classifier/kept"] == 0.5
    assert trackers[0].state_key != trackers[1].state_key
    assert {path.name for path in tmp_path.rglob("*.png")} == {"mask.png", "mask-classifier.png"}
    assert set(EventAccumulator(logger.log_dir).Reload().Tags()["images"]) == {"mask", "mask/classifier"}


def test_the_figure_comes_every_n_epochs_and_at_the_end(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run")
    tracker = MaskTracker(figure_every_n_epochs=2)
    callbacks = [MaskRefresh(ratio=0.5), tracker]
    module = make_module(torch.nn.CrossEntropyLoss())
    trainer = make_trainer(tmp_path, callbacks, 3, logger=logger, log_every_n_steps=1)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    events = EventAccumulator(logger.log_dir).Reload()
    assert [image.step for image in events.Images("mask")] == [10, 15]
    assert [event.value for event in events.Scalars("mask/kept")] == [0.5, 0.5, 0.5]
    picture = (tmp_path / "run" / "version_0" / "figures" / "mask.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_masks_of_any_dtype(tmp_path, precision):
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    tracker = MaskTracker("classifier")
    callbacks = [MaskRefresh("classifier", ratio=0.5), tracker]
    make_trainer(tmp_path, callbacks, precision=precision).fit(ForeignModule(), loader(dtype=dtype))
    assert tracker.history[1]["mask/classifier/kept"] == 0.5
    assert tracker.kept_share.sum() == pytest.approx(16)


def test_a_layer_that_is_not_there(tmp_path):
    with pytest.raises(NoisyLabelError, match=r"ForeignModule has no layer `hed`.*dotted name") as caught:
        make_trainer(tmp_path, [MaskTracker("hed")]).fit(ForeignModule(), loader())
    assert "\n" not in str(caught.value)


def test_a_fresh_run_starts_afresh(tmp_path):
    tracker = MaskTracker("classifier")
    for epochs in (3, 1):
        masks = SetMasks(random_mask)
        make_trainer(tmp_path, [masks, tracker], max_epochs=epochs).fit(ForeignModule(), loader())
        assert_equals(tracker, masks.seen)


def test_copies_and_saved_state_are_snapshots(tmp_path):
    taken = []

    class Taker(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            tracker = trainer.callbacks[2]
            taken.append((copy.deepcopy(tracker), tracker.section.state_dict()))

    masks, tracker = SetMasks(random_mask), MaskTracker("classifier")
    make_trainer(tmp_path, [masks, tracker, Taker()]).fit(ForeignModule(), loader())
    for step, (twin, state) in enumerate(taken, start=1):
        loaded = MaskTracker("classifier")
        loaded.section.load_state_dict(state)
        for one in (twin, loaded):
            np.testing.assert_allclose(one.kept_share.numpy(), oracle(masks.seen[:step])[1], rtol=1e-6)
            assert set(one.history) == ({0} if step > 3 else set())


def test_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    """Also when the first mask after the resume differs from the last one before."""
    masks, tracker = SetMasks(random_mask), MaskTracker("classifier")
    whole = make_trainer(tmp_path, [masks, tracker], max_epochs=4)
    whole.fit(ForeignModule(), loader())
    first = SetMasks(random_mask), MaskTracker("classifier")
    half = make_trainer(tmp_path, first)
    half.fit(ForeignModule(), loader())
    half.save_checkpoint(tmp_path / "two.ckpt")
    torch.load(tmp_path / "two.ckpt", weights_only=True)
    again = SetMasks(lambda step: random_mask(step + 6)), MaskTracker("classifier")
    make_trainer(tmp_path, again, max_epochs=4).fit(ForeignModule(), loader(), ckpt_path=tmp_path / "two.ckpt")
    assert again[1].history == tracker.history
    assert torch.equal(again[1].kept_share, tracker.kept_share)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_follows_the_mask_to_another_device_without_a_host_round_trip(tmp_path):
    class NoSync(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            torch.cuda.set_sync_debug_mode("error")

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            torch.cuda.set_sync_debug_mode("default")

        def on_train_batch_end(self, trainer, pl_module, *_):
            torch.cuda.set_sync_debug_mode("default")

    first = make_trainer(tmp_path, [MaskRefresh("classifier"), MaskTracker("classifier")])
    first.fit(ForeignModule(), loader())
    first.save_checkpoint(tmp_path / "two.ckpt")
    callbacks = [NoSync(), MaskRefresh("classifier"), tracker := MaskTracker("classifier")]
    trainer = make_trainer(tmp_path, callbacks, max_epochs=4, accelerator="gpu", log_every_n_steps=1000)
    trainer.fit(ForeignModule(), loader(), ckpt_path=tmp_path / "two.ckpt")
    assert tracker.kept_share.device.type == "cuda"
    assert set(tracker.history) == set(range(4))
