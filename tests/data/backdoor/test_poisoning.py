"""Backdoors in data modules: what is poisoned, what is evaluated, what is written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_noisy.callbacks import StepSeed
from lightning_noisy.data import (
    CIFAR10DataModule,
    CSVDataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    FeaturesDataModule,
    GlobalTrigger,
    ImageFolderDataModule,
    LocalTrigger,
    SymmetricNoise,
)
from lightning_noisy.data.backdoor.picture import image_pairs_figure
from lightning_noisy.errors import NoisyLabelError
from tests._dummies import DummyCIFAR10, isolate, quiet, write_image
from tests.foreign import make_trainer
from tests.small import SmallDataModule, assert_same, make_module

TRIGGER = LocalTrigger(0.25, target=1, size=0.25)
SMALL = LocalTrigger(0.25, target=1)
NOISE = SymmetricNoise(0.4)


class Blobs(SmallDataModule):
    pixel_range = (-3.0, 3.0)


def read(loader):
    """All batches, joined."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def ready(kind=DigitsDataModule, stage="fit", **options):
    data = kind(**{"seed": 3, "batch_size": 100, "backdoor": TRIGGER, **options})
    data.setup(stage)
    return data


def in_order(data):
    """Images, labels of the training split as they are evaluated."""
    return read(data.scoring_loader())[:2]


@pytest.mark.parametrize("noise", [None, NOISE])
def test_a_poisoned_sample_shows_the_trigger_and_has_the_target_as_label(noise):
    data, plain = ready(noise=noise), ready(noise=noise, backdoor=None)
    (images, target), (originals, labels) = in_order(data), in_order(plain)
    poisoned = data.poisoned

    assert poisoned.sum() == round(0.25 * 1437)
    assert (target[poisoned] == 1).all()
    assert (data.clean_targets[poisoned] != 1).all()
    assert torch.equal(data.clean_targets, plain.clean_targets)
    assert torch.equal(target[~poisoned], labels[~poisoned])
    assert torch.equal(data.noisy_targets, target)
    assert data.realized_noise_rate == (target != data.clean_targets).double().mean().item()

    low, high = originals.min(), originals.max()
    expected = originals.clone()
    for i in poisoned.nonzero():
        expected[i, 0, 6, 6] = expected[i, 0, 7, 7] = high
        expected[i, 0, 6, 7] = expected[i, 0, 7, 6] = low
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=0)
    assert not plain.poisoned.any()


def test_augmentation_comes_after_the_trigger():
    data, shifted = ready(augment=False), ready()
    plain, moved = (next(iter(d.train_dataloader()))[0] for d in (data, shifted))
    padded = nn.functional.pad(plain, [1] * 4, value=data.pixel_range[0])
    places = [padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    assert torch.stack([(place == moved).flatten(1).all(dim=1) for place in places]).any(dim=0).all()


@pytest.mark.parametrize("trigger", [TRIGGER, GlobalTrigger(0.1, 1)])
def test_the_attacked_test_set_has_all_images_but_those_of_the_target(trigger):
    data = ready(backdoor=trigger)
    test, attacked = map(read, data.test_dataloader())
    others = test[1] != 1

    assert data.validation_splits == data.test_splits == ("test", "backdoor")
    assert torch.equal(attacked[1], test[1][others])
    torch.testing.assert_close(attacked[0], trigger.stamp(test[0][others], *data.pixel_range))
    assert torch.equal(read(data.predict_dataloader())[0], test[0])


@pytest.mark.parametrize("noisy_val", [True, False])
def test_the_validation_split_keeps_its_triggers_or_is_as_it_came(noisy_val):
    data, plain = (ready(val_fraction=0.4, noisy_val=noisy_val, backdoor=b) for b in (TRIGGER, None))
    (images, target), (originals, labels) = (read(d.val_dataloader()[0]) for d in (data, plain))
    changed = (images != originals).flatten(1).any(dim=1)

    assert bool(changed.any()) == noisy_val
    assert (target[changed] == 1).all()
    assert torch.equal(target[~changed], labels[~changed])
    assert data.poisoned.sum() + changed.sum() == round(0.25 * 1437) or not noisy_val


# Every data module


def cifar(folder, monkeypatch):
    monkeypatch.setattr("lightning_noisy.data.cifar.CIFAR10", DummyCIFAR10)
    return CIFAR10DataModule, {"num_workers": 0, "backdoor": SMALL}, slice(29, 32)


def fashion(folder, monkeypatch):
    generator = np.random.default_rng(0)
    opened = SimpleNamespace(data=generator.integers(0, 256, (40, 28, 28), np.uint8), targets=np.arange(40) % 10)
    monkeypatch.setattr(FashionMNISTDataModule, "open", lambda self, train, download=False: opened)
    return FashionMNISTDataModule, {"num_workers": 0, "backdoor": SMALL}, slice(25, 28)


def folders(folder, monkeypatch):
    for split, count in (("train", 6), ("test", 3)):
        for label in range(3):
            for i in range(count):
                write_image(folder / split / str(label) / f"{i}.png", 30 * i + label, size=(32, 32))
    options = {"root": str(folder), "image_size": 28, "resize": 32, "num_workers": 0}
    return ImageFolderDataModule, {**options, "backdoor": LocalTrigger(0.25, 1, margin=1 / 16)}, slice(25, 28)


def table(folder, monkeypatch):
    _, options, corner = folders(folder, monkeypatch)
    rows = [
        f"{part}/{k}/{i}.png,{k},{part}" for part, n in (("train", 6), ("test", 3)) for k in range(3) for i in range(n)
    ]
    (folder / "table.csv").write_text("\n".join(["image,label,split", *rows]))
    del options["root"]
    return CSVDataModule, {**options, "table": str(folder / "table.csv"), "split_column": "split"}, corner


@pytest.mark.parametrize("case", [cifar, fashion, folders, table])
def test_every_image_data_module_takes_one(tmp_path, monkeypatch, case):
    kind, options, corner = case(tmp_path, monkeypatch)
    data, plain = ready(kind, **options), ready(kind, **{**options, "backdoor": None})
    (images, target), (originals, _) = in_order(data), in_order(plain)
    changed = images != originals

    assert data.poisoned.sum() == round(0.25 * len(target)) > 0
    assert torch.equal(changed.flatten(1).any(dim=1), data.poisoned)
    assert (target[data.poisoned] == 1).all()
    changed[..., corner, corner] = False
    assert not changed.any()
    patch = images[data.poisoned][..., corner, corner]
    white, black = patch[..., 0, 0], patch[..., 0, 1]
    assert (white > black).all()
    assert torch.equal(patch[..., [0, 1, 2], [0, 1, 2]], white.unsqueeze(-1).expand(*white.shape, 3))
    attacked = read(data.test_dataloader()[1])
    assert (attacked[1] != 1).all()
    assert (attacked[0][..., corner, corner] == patch[0]).all()
    assert all(batch[0].isfinite().all() for batch in data.train_dataloader())


# What a run does with it


def trained(folder, epochs, workers, **options):
    trainer = make_trainer(folder, [StepSeed(1)], max_epochs=epochs)
    data = Blobs(seed=0, backdoor=TRIGGER, num_workers=workers)
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=data, **options)
    trainer.save_checkpoint(folder / "last.ckpt")
    return data.poisoned, trainer.callback_metrics, trainer.lightning_module.state_dict()


def test_a_run_that_is_resumed_with_workers_equals_the_uninterrupted_one(tmp_path):
    whole = trained(tmp_path, 2, workers=0)
    trained(tmp_path, 1, workers=2)
    assert_same(whole, trained(tmp_path, 2, workers=2, ckpt_path=tmp_path / "last.ckpt"))


def test_success_and_accuracy_are_counted(tmp_path):
    data, module = Blobs(seed=0, backdoor=TRIGGER), make_module(nn.CrossEntropyLoss())
    trainer = make_trainer(tmp_path, max_epochs=3)
    for stage in (trainer.fit, trainer.validate, trainer.test):
        stage(module, datamodule=data)
        module.eval()
        images, target = read(data.test_dataloader()[1])
        predicted = module(images).argmax(dim=1)
        seen = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("backdoor/")}
        assert seen == {
            "backdoor/success": pytest.approx((predicted == 1).double().mean().item()),
            "backdoor/acc": pytest.approx((predicted == target).double().mean().item()),
        }
    assert 0 < seen["backdoor/success"] <= 1


def test_ranks_poison_the_same_samples():
    whole = ready(Blobs)
    parts = []
    for rank in (0, 1):
        data = Blobs(seed=3, batch_size=4, backdoor=TRIGGER)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, is_global_zero=False, log_dir=None, loggers=[])
        data.setup("fit")
        assert torch.equal(data.poisoned, whole.poisoned)
        parts += list(data.scoring_loader())
    images, target, index = [torch.cat(column) for column in zip(*parts, strict=True)]
    assert torch.equal(images[index.argsort()], in_order(whole)[0])
    assert torch.equal(target[index.argsort()], whole.noisy_targets)


CONFIG = """
base: quickstart_ce
trainer: {max_epochs: 1, limit_train_batches: 1, accelerator: cpu}
model: {backbone: {init_args: {width: 4, num_features: 8}}}
data:
  noise: {rate: 0.2}
  backdoor: {class_path: LocalTrigger, init_args: {rate: 0.02, target: 4}}
"""


def test_yaml_and_the_files_of_a_run(tmp_path, monkeypatch, caplog):
    isolate(monkeypatch, tmp_path)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    cli = quiet("fit", "mine.yaml", "--data.backdoor.rate", 0.03)

    folder = tmp_path / "runs" / "mine" / "version_0"
    manifest = json.loads((folder / "noise.json").read_text())
    options = {"rate": 0.03, "target": 4, "size": 0.1, "margin": 0.0}
    assert manifest["backdoor"] == {"class": "LocalTrigger", **options, "num_poisoned": 43}
    with np.load(folder / "noisy_labels.npz") as arrays:
        assert set(arrays) == {"noisy", "clean", "poisoned", "row", "class_names"}
        assert arrays["poisoned"].dtype == bool
        assert np.array_equal(arrays["poisoned"], cli.datamodule.poisoned)
        assert (arrays["noisy"][arrays["poisoned"]] == 4).all()
        assert (arrays["clean"][arrays["poisoned"]] != 4).all()
    assert (folder / "figures" / "backdoor.png").read_bytes().startswith(b"\x89PNG")
    assert "injected by SymmetricNoise and LocalTrigger " in caplog.text
    assert "backdoor/success" in json.loads((folder / "summary.json").read_text())["also"]

    saved = str(folder / "config.yaml")
    without = ["--trainer.logger", "false", "--untrained", "true"]
    tested = quiet("test", saved, *without)
    assert {"backdoor/success", "backdoor/acc", "test/acc"} <= set(tested.trainer.callback_metrics)
    assert len(quiet("predict", saved, *without).datamodule.poisoned) == 1437


def test_without_poisoned_images_there_is_no_figure(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    make_trainer(tmp_path, max_epochs=1, logger=logger).fit(
        make_module(nn.CrossEntropyLoss()), datamodule=Blobs(seed=0, backdoor=LocalTrigger(0.0, size=0.25))
    )
    manifest = json.loads((tmp_path / "noise.json").read_text())
    assert manifest["backdoor"]["num_poisoned"] == 0
    assert not (tmp_path / "figures" / "backdoor.png").exists()


def test_each_image_stands_above_what_became_of_it():
    pairs = [[np.full((2, 3, 3), 0.25 * i), np.full((2, 3, 3), 0.25 * i + 0.1)] for i in range(3)]
    pairs[2][1][0, 0] = 1.5
    figure = image_pairs_figure(pairs, ("before", "after"))
    shown = [axes.images[0].get_array() for axes in figure.axes]

    assert [image[1, 0, 0] for image in shown] == [0.0, 0.25, 0.5, 0.1, 0.35, 0.6]
    assert shown[5][0, 0].tolist() == [1, 1, 1]
    assert [axes.get_ylabel() for axes in figure.axes] == ["before", "", "", "after", "", ""]
    gray = image_pairs_figure([[np.full((2, 2, 1), 0.5)] * 2], ("a", "b")).axes[0].images[0]
    assert (gray.norm.vmin, gray.norm.vmax) == (0, 1)


# Refusals


class NoTest(Blobs):
    def test_images(self):
        return None


def test_what_cannot_have_a_backdoor_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", x=np.zeros((20, 4), np.float32), y=np.arange(20) % 4)
    features = {"path": str(tmp_path / "f.npz"), "test_rows": 5}
    cases = [
        (SmallDataModule, {}, r"nobody knows them of torch\.float32 images: set `pixel_range`"),
        (NoTest, {}, "measured on the test set, but there is none"),
        (Blobs, {"backdoor": LocalTrigger(0.1, target=4)}, r"`target` to be a class in \[0, 4\), but got 4"),
        (FeaturesDataModule, features, r"put on pixels: expected \(N, C, H, W\), but got shape \(\d+, 4\)"),
    ]
    for kind, options, match in cases:
        with pytest.raises(NoisyLabelError, match=match):
            ready(kind, **options)


def test_a_trigger_that_crops_cut_off_is_refused(tmp_path, monkeypatch):
    kind, options, _ = folders(tmp_path, monkeypatch)
    with pytest.raises(NoisyLabelError, match=r"LocalTrigger\(.*\) does not show in evaluated images: .* a `margin`"):
        ready(kind, **{**options, "image_size": 24, "backdoor": LocalTrigger(0.25, 1)})
