"""Samples that stay on the device: the same as those of the loader, made without reading anything back."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import move_data_to_device
from torch import nn

from lightning_noisy import NoisyLabelError, NoisyLabelModule
from lightning_noisy.data import DigitsDataModule, FeaturesDataModule, SymmetricNoise
from lightning_noisy.data.batch_transforms import Compose, RandomFlip
from lightning_noisy.data.batch_views import EachImage, Views
from lightning_noisy.data.on_device import MOST_BYTES, DeviceCopies, PendingImages, stays_on_device
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests.foreign import make_trainer
from tests.small import assert_same


def digits(data_on, **options):
    return DigitsDataModule(SymmetricNoise(0.3), batch_size=32, seed=3, data_on=data_on, augment=True, **options)


def features(data_on, folder):
    path, generator = folder / "features.npz", torch.Generator().manual_seed(0)
    if not path.exists():
        x, y = torch.randn(90, 5, generator=generator).numpy() * 3 + 1, np.arange(90) % 3
        np.savez(path, x=x, y=y)
    return FeaturesDataModule(
        path, SymmetricNoise(0.3), views=["weak", "strong"], noise_std=0.3, test_rows=20, seed=3, data_on=data_on
    )


@pytest.mark.parametrize("kind", ["digits", "views", "features"])
def test_batches_are_those_of_the_loader(kind, tmp_path):
    made = []
    for place in ("loader", "device"):
        options = {"views": ("weak", "strong")} if kind == "views" else {}
        data = features(place, tmp_path) if kind == "features" else digits(place, val_fraction=0.1, **options)
        data.setup("fit")
        loaders = [data.train_dataloader(), data.scoring_loader(), *data.val_dataloader()]
        data.sampler.set_epoch(2)
        batches = [[list(batch) for batch in loader] for loader in loaders]
        pending = [isinstance(batch[0], PendingImages) for batches_of in batches for batch in batches_of]
        assert all(pending) if place == "device" else not any(pending)
        sizes = [len(batch[0]) == len(batch[1]) for batches_of in batches for batch in batches_of]
        assert place == "loader" or all(sizes)
        made.append(move_data_to_device(batches, torch.device("cpu")))
    assert_same(*made)


def test_a_fit_is_the_same(tmp_path):
    ends = []
    for place in ("loader", "device"):
        torch.manual_seed(0)
        module = NoisyLabelModule(SmallCNN(width=4), LinearHead, nn.CrossEntropyLoss(), 10)
        data = digits(place, num_workers=1 if place == "loader" else 7)
        trainer = make_trainer(tmp_path, max_epochs=2)
        trainer.fit(module, datamodule=data)
        ends.append([module.state_dict(), module.history, {k: float(v) for k, v in trainer.callback_metrics.items()}])
    assert_same(*ends)


class Nothing(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what makes the host wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        assert "_local_scalar_dense" not in name, name
        assert "nonzero" not in name, name
        device = (kwargs or {}).get("device")
        if "_to_copy" in name and device is not None and torch.device(device).type == "meta":
            assert kwargs.get("non_blocking"), args
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["digits", "features"])
def test_nothing_is_waited_for(kind, tmp_path):
    data = features("device", tmp_path) if kind == "features" else digits("device")
    data.setup("fit")
    first, second, *_ = [*data.train_dataloader()] * 2
    first[0].to("meta")  # brings samples and constants there
    with Nothing():
        images = second[0].to("meta")
    assert all(view.device.type == "meta" for view in (images if isinstance(images, list) else [images]))


def test_a_sample_alone_is_a_tensor():
    whole, pending = digits("loader"), digits("device")
    for data in (whole, pending):
        data.setup("fit")
        data.train_dataloader()
    assert torch.equal(whole._train[5][0], pending._train[5][0])
    assert len(next(iter(pending.train_dataloader()))[0]) == 32


def test_copies_are_made_once_and_stay_where_they_are():
    samples = torch.arange(6.0)
    copies = DeviceCopies.of(samples)
    assert DeviceCopies.of(samples) is copies
    assert DeviceCopies.of(samples.clone()) is not copies
    assert copies.on(torch.device("cpu")) is samples
    there = copies.on(torch.device("meta"))
    assert copies.on(torch.device("meta")) is there
    for other in (copy.deepcopy(copies), pickle.loads(pickle.dumps(copies))):
        assert torch.equal(other.samples, samples)
        assert other._copies == {}


def run(kind="cuda", precision="32-true", **more):
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)), precision=precision, **more)


class Early(LightningModule):
    """Looks at batches before they are moved."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch


SMALL, LARGE = torch.zeros(3), torch.empty(MOST_BYTES + 1, dtype=torch.uint8, device="meta")


@pytest.mark.parametrize(
    ("data_on", "samples", "by_batch", "trainer", "expected"),
    [
        ("auto", SMALL, True, run(), True),
        ("auto", SMALL, True, run(precision="bf16-mixed"), True),
        ("auto", SMALL, True, run("cpu"), False),
        ("auto", SMALL, True, None, False),
        ("auto", SMALL, False, run(), False),
        ("auto", LARGE, True, run(), False),
        ("auto", SMALL, True, run(precision="16-true"), False),
        ("device", LARGE, False, run("cpu"), True),
        ("device", SMALL, True, None, True),
        ("loader", SMALL, True, run(), False),
        ("auto", SMALL, True, run(lightning_module=Early()), False),
        ("auto", SMALL, True, run(lightning_module=LightningModule()), True),
    ],
)
def test_where_samples_are_made(data_on, samples, by_batch, trainer, expected):
    assert stays_on_device(data_on, samples, by_batch, trainer) is expected


def test_what_goes_image_by_image_is_known():
    flip, each = RandomFlip(), EachImage(lambda image: image)
    assert Compose([flip, Views([flip, flip])]).by_batch
    assert not Compose([flip, each]).by_batch
    assert not Views([flip, Compose([each])]).by_batch


def test_what_cannot_be_is_refused():
    with pytest.raises(NoisyLabelError, match="`data_on` to be 'auto', 'device' or 'loader', but got 'gpu'"):
        digits("gpu")
    with pytest.raises(NoisyLabelError, match="precision='16-true' has converted the batch: use data_on='loader'"):
        stays_on_device("device", SMALL, True, run(precision="16-true"))
    with pytest.raises(NoisyLabelError, match="before_batch_transfer`, which this run overrides: use data_on='loader'"):
        stays_on_device("device", SMALL, True, run(lightning_module=Early()))
