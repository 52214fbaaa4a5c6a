import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lightning_noisy.data import (
    AsymmetricNoise,
    FeaturesDataModule,
    FileNoise,
    LabeledImages,
    LabelNoise,
    NoisyDataModule,
    SymmetricNoise,
)
from lightning_noisy.errors import NoisyLabelError
from tests.foreign import make_trainer
from tests.small import MemoryLogger, SmallDataModule, make_module

CLASSES, SAMPLES, TEST_SAMPLES = 4, 60, 10
LABELS = torch.arange(SAMPLES) % CLASSES
NOISE = SymmetricNoise(0.5)


class Numbered(NoisyDataModule):
    """Image i of the whole training set is the number i, image i of the test set -i."""

    num_classes = CLASSES

    def __init__(self, noise=NOISE, batch_size=7, seed=3, num_samples=SAMPLES, **options):
        super().__init__(noise, batch_size, seed=seed, **options)
        self.num_samples = num_samples

    def training_images(self):
        return LabeledImages(torch.arange(self.num_samples).__getitem__, LABELS[: self.num_samples])

    def test_images(self):
        return LabeledImages((-torch.arange(TEST_SAMPLES)).__getitem__, LABELS[:TEST_SAMPLES])

    def training_transform(self):
        return lambda image: image + torch.rand((), dtype=torch.float64) / 2

    def evaluation_transform(self):
        return nn.Identity()


def ready(**options):
    data = Numbered(**options)
    data.setup("fit")
    return data


def read(loader):
    """All batches, joined."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def noisy_labels(noise=NOISE, seed=3):
    """What the noise makes of the whole training set."""
    return noise.corrupt(LABELS, CLASSES, seed)


@pytest.mark.parametrize("noise", [NOISE, AsymmetricNoise(1.0, {0: 1}), None])
@pytest.mark.parametrize("val_fraction", [0.0, 0.25])
def test_training_batches_have_the_labels_of_their_images(noise, val_fraction):
    data = ready(noise=noise, val_fraction=val_fraction)
    whole = LABELS if noise is None else noisy_labels(noise)

    images, target, index = read(data.train_dataloader())
    positions = images.long()

    assert torch.equal(index.sort().values, torch.arange(round(SAMPLES * (1 - val_fraction))))
    assert torch.equal(target, whole[positions])
    assert torch.equal(target, data.noisy_targets[index])
    assert torch.equal(data.clean_targets[index], LABELS[positions])
    assert torch.equal(positions[index.argsort()], positions.sort().values)
    assert data.realized_noise_rate == pytest.approx((target != LABELS[positions]).double().mean().item())


@pytest.mark.parametrize("noisy_val", [True, False])
def test_the_validation_split_keeps_its_labels_or_gets_clean_ones(noisy_val):
    data = ready(val_fraction=0.4, noisy_val=noisy_val)

    images, target = read(data.val_dataloader()[0])

    assert len(images) == 24
    assert torch.equal(target, (noisy_labels() if noisy_val else LABELS)[images])
    assert not torch.equal(noisy_labels()[images], LABELS[images])


@pytest.mark.parametrize("val_fraction", [0.1, 0.5, 0.9])
def test_the_splits_share_the_training_set(val_fraction):
    data = ready(val_fraction=val_fraction)

    train, val = read(data.train_dataloader())[0].long(), read(data.val_dataloader()[0])[0]

    assert len(val) == round(val_fraction * SAMPLES)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(SAMPLES))
    assert val.tolist() != list(range(len(val)))
    assert val.tolist() != list(range(SAMPLES - len(val), SAMPLES))


def validation_positions(**options):
    return read(ready(val_fraction=0.3, **options).val_dataloader()[0])[0].tolist()


def test_the_split_is_a_function_of_the_seed():
    first = validation_positions()
    torch.manual_seed(99)

    assert validation_positions(noise=None, batch_size=2) == first
    assert validation_positions(seed=4) != first


def test_a_larger_validation_split_holds_the_smaller_one():
    small, large = (read(ready(val_fraction=f).val_dataloader()[0])[0].tolist() for f in (0.2, 0.5))
    assert set(small) < set(large)


def test_without_a_validation_split_only_the_test_set_is_evaluated():
    data = ready()

    assert data.validation_splits == ("test",)
    assert len(data.val_dataloader()) == 1
    assert ready(val_fraction=0.2).validation_splits == ("val", "test")


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_the_test_set_is_clean_and_in_order_everywhere(val_fraction):
    data = ready(noise=AsymmetricNoise(1.0, {0: 1}), val_fraction=val_fraction)

    for loader in (data.val_dataloader()[-1], data.test_dataloader(), data.predict_dataloader()):
        images, target = read(loader)
        assert images.tolist() == [-i for i in range(TEST_SAMPLES)]
        assert torch.equal(target, LABELS[:TEST_SAMPLES])


def test_setup_twice_gives_the_same():
    data = ready(val_fraction=0.2)
    first = [*read(data.train_dataloader()), *read(data.val_dataloader()[0]), data.noisy_targets, data.clean_targets]
    data.setup("test")
    second = [*read(data.train_dataloader()), *read(data.val_dataloader()[0]), data.noisy_targets, data.clean_targets]

    assert data.validation_splits == ("val", "test")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_seed_moves_noise_order_and_augmentation():
    (images, _, _), (others, wrong, _) = (read(ready(seed=s).train_dataloader()) for s in (3, 4))

    assert not torch.equal(images.long(), others.long())
    assert torch.equal(wrong, noisy_labels(seed=4)[others.long()])
    assert not torch.equal(images.sort().values, others.sort().values)


@pytest.mark.parametrize(("given", "variable", "seed"), [(None, "11", 11), (None, None, 0), (0, "11", 0), (5, None, 5)])
def test_the_seed_is_that_of_the_run_unless_given(monkeypatch, given, variable, seed):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if variable is not None:
        monkeypatch.setenv("PL_GLOBAL_SEED", variable)

    data = ready(seed=given)

    assert data.seed == seed
    assert torch.equal(data.noisy_targets, noisy_labels(seed=seed))


def on_rank(rank, world=2, folder=None):
    return SimpleNamespace(
        world_size=world, global_rank=rank, is_global_zero=rank == 0, log_dir=folder, loggers=[None], fast_dev_run=False
    )


def test_two_processes_share_the_samples():
    single = ready(batch_size=10)
    parts, tests = [], []
    for rank in range(2):
        data = Numbered(batch_size=5)
        data.trainer = on_rank(rank)
        data.setup("fit")
        parts.append(list(data.train_dataloader()))
        tests.append(read(data.test_dataloader())[0])

    for whole, *halves in zip(single.train_dataloader(), *parts, strict=True):
        assert torch.equal(torch.cat([half[0] for half in halves]).sort().values, whole[0].sort().values)
    assert sorted(torch.cat(tests).tolist()) == sorted(-i for i in range(TEST_SAMPLES))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_have_the_options_given(num_workers):
    data = ready(num_workers=num_workers, pin_memory=True, val_fraction=0.2)

    for loader in (data.train_dataloader(), *data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert (loader.batch_size, loader.num_workers, loader.pin_memory) == (7, num_workers, True)
        assert loader.persistent_workers == (num_workers > 0)
        assert not loader.drop_last


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 0}, "`batch_size` to be an int of at least 1, but got 0"),
        ({"batch_size": 1.5}, "`batch_size` to be an int of at least 1, but got 1.5"),
        ({"num_workers": 0.5}, "`num_workers` to be an int from 0 to 1024, but got 0.5"),
        ({"num_workers": -1}, "`num_workers` to be an int from 0 to 1024, but got -1"),
        ({"val_fraction": 1.0}, r"`val_fraction` to be a float in \[0, 1\), but got 1.0"),
        ({"val_fraction": -0.1}, r"`val_fraction` to be a float in \[0, 1\), but got -0.1"),
        ({"val_fraction": float("nan")}, r"`val_fraction` to be a float in \[0, 1\), but got nan"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, match):
    with pytest.raises(NoisyLabelError, match=match):
        Numbered(**options)


def test_an_empty_training_set_is_refused():
    with pytest.raises(NoisyLabelError, match=r"^The training set of Numbered is empty"):
        ready(num_samples=0)


def test_a_validation_split_that_takes_all_is_refused():
    with pytest.raises(NoisyLabelError, match=r"`val_fraction` to leave training samples, but got 0\.9, .* all 2"):
        ready(num_samples=2, val_fraction=0.9)


def test_the_base_cannot_be_used():
    with pytest.raises(TypeError, match="abstract"):
        NoisyDataModule()


# Sets that come with their noise, or without a test set

WRONG = (LABELS + (torch.arange(SAMPLES) % 4 == 0)) % CLASSES


class Given(Numbered):
    """Comes with noisy labels; clean ones are known or not; there is a test set or not."""

    def __init__(self, clean=LABELS, test=True, noise=None, **options):
        super().__init__(noise, **options)
        self.clean, self.test = clean, test

    def training_images(self):
        return LabeledImages(torch.arange(SAMPLES).__getitem__, self.clean, WRONG)

    def test_images(self):
        return super().test_images() if self.test else None


def given(**options):
    data = Given(**options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("clean", [LABELS, None])
@pytest.mark.parametrize("val_fraction", [0.0, 0.25])
def test_given_noise_is_trained_on(clean, val_fraction):
    data = given(clean=clean, val_fraction=val_fraction)
    images, target, index = read(data.train_dataloader())
    positions = images.long()

    assert torch.equal(target, WRONG[positions])
    assert torch.equal(data.noisy_targets[index], target)
    if clean is None:
        assert data.clean_targets is None
        assert data.realized_noise_rate is None
    else:
        assert torch.equal(data.clean_targets[index], LABELS[positions])
        assert data.realized_noise_rate == pytest.approx((target != LABELS[positions]).double().mean().item())
    if val_fraction:
        images, target = read(data.val_dataloader()[0])
        assert torch.equal(target, WRONG[images])


@pytest.mark.parametrize("clean", [LABELS, None])
def test_given_noise_and_noise_drawn_are_refused_together(clean):
    with pytest.raises(
        NoisyLabelError, match=r"^The training set of Given comes with noisy labels, but got noise=Symm"
    ):
        given(clean=clean, noise=NOISE)


def test_unknown_clean_labels_of_the_validation_split_are_refused():
    images, target = read(given(noisy_val=False, val_fraction=0.25).val_dataloader()[0])
    assert torch.equal(target, LABELS[images])
    with pytest.raises(
        NoisyLabelError, match=r"`noisy_val` to be true, as nobody knows the clean labels of Given, but"
    ):
        given(clean=None, noisy_val=False, val_fraction=0.25)


@pytest.mark.parametrize(("val_fraction", "splits"), [(0.0, ()), (0.25, ("val",))])
def test_without_a_test_set_the_validation_split_alone_is_evaluated(val_fraction, splits):
    data = given(test=False, val_fraction=val_fraction)

    assert data.validation_splits == splits
    assert [len(read(loader)[0]) for loader in data.val_dataloader()] == [15] * len(splits)
    for loader in (data.test_dataloader, data.predict_dataloader):
        with pytest.raises(
            NoisyLabelError, match=r"^This Given has no test set, which `test` and `predict` read: give"
        ):
            loader()


def test_an_empty_set_is_refused_before_its_noise_is_drawn():
    class Empty(Numbered):
        def training_images(self):
            return LabeledImages(torch.arange(0).__getitem__, LABELS[:0])

    with pytest.raises(NoisyLabelError, match=r"^The training set of Empty is empty"):
        Empty(noise=FileNoise("nowhere.npy")).setup("fit")


class WatchingNoise(SymmetricNoise):
    def corrupt(self, targets, num_classes, seed, images=None):
        self.seen = [int(images(index)) for index in range(len(targets))]
        return super().corrupt(targets, num_classes, seed, images)


def test_noise_gets_the_images_of_the_whole_training_set_untransformed():
    noise = WatchingNoise(0.5)
    ready(noise=noise, val_fraction=0.25)

    assert noise.seen == list(range(SAMPLES))


# Sets beside the training set


class Further(Numbered):
    """A validation set of its own, image i being 1000 + i, and a second test set, -1000 - i, with other labels."""

    def evaluation_images(self):
        labels = LABELS.flip(0)[:5]
        own = LabeledImages((1000 + torch.arange(5)).__getitem__, labels)
        return {
            "val": own,
            **super().evaluation_images(),
            "far": LabeledImages((-1000 - torch.arange(3)).__getitem__, labels[:3]),
        }


def test_sets_of_its_own_are_evaluated_under_their_names():
    data = Further()
    data.setup("fit")

    assert data.validation_splits == ("val", "test", "far")
    assert data.test_splits == ("test", "far")
    val, *tests = [read(loader) for loader in data.val_dataloader()]
    again = [read(loader) for loader in data.test_dataloader()]
    assert val[0].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert torch.equal(val[1], LABELS.flip(0)[:5])
    assert [images[0].item() for images, _ in tests] == [0, -1000]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(tests, again, strict=True))
    assert read(data.predict_dataloader())[0].tolist() == [-i for i in range(TEST_SAMPLES)]
    assert len(read(data.train_dataloader())[0]) == SAMPLES


def test_a_validation_set_and_a_split_are_refused_together():
    with pytest.raises(NoisyLabelError, match=r"`val_fraction` to be 0 beside a validation set, but got 0\.2"):
        Further(val_fraction=0.2).setup("fit")


class FurtherBlobs(SmallDataModule):
    """The training images with their clean labels, reversed, are a second test set."""

    def evaluation_images(self):
        images = self.training_images()
        return {**super().evaluation_images(), "far": LabeledImages(images.image, 3 - images.labels)}


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_second_test_set_has_figures_of_its_own(tmp_path, stage):
    data, module = FurtherBlobs(seed=0), make_module(nn.CrossEntropyLoss())
    trainer = make_trainer(tmp_path, max_epochs=1)
    getattr(trainer, stage)(module, datamodule=data)
    module.eval()

    loaders = dict(zip(data.validation_splits, data.val_dataloader(), strict=True))
    for name in data.test_splits if stage == "test" else data.validation_splits:
        images, target = read(loaders[name])
        accuracy = (module(images).argmax(dim=1) == target).double().mean().item()
        assert trainer.callback_metrics[f"{name}/acc"].item() == pytest.approx(accuracy, abs=1e-6)
    assert ("val/acc" in trainer.callback_metrics) == (stage != "test")


# Evidence


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


EVIDENCE = {"noise.json", "noisy_labels.npz", "transition.png"}


class FolderLogger(MemoryLogger):
    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    save_dir = property(lambda self: self.folder)


def test_fit_writes_the_evidence_of_its_labels(tmp_path):
    data = SmallDataModule(seed=5)
    trainer = make_trainer(tmp_path / "elsewhere", max_epochs=1, logger=FolderLogger(tmp_path))
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=data)

    manifest = json.loads((tmp_path / "noise.json").read_text())
    labels = np.load(tmp_path / "noisy_labels.npz")

    assert files(tmp_path) == EVIDENCE
    assert torch.equal(torch.from_numpy(labels["noisy"]), data.noisy_targets)
    assert torch.equal(torch.from_numpy(labels["clean"]), data.clean_targets)
    assert (manifest["seed"], manifest["num_samples"], manifest["requested_rate"]) == (5, 40, 0.4)
    assert manifest["realized_rate"] == data.realized_noise_rate
    assert 0 < data.realized_noise_rate < 1


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_other_stages_write_nothing(tmp_path, stage):
    trainer = make_trainer(tmp_path, logger=FolderLogger(tmp_path))
    getattr(trainer, stage)(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))

    assert not files(tmp_path)


@pytest.mark.parametrize("options", [{"fast_dev_run": 1, "logger": True}, {"logger": False, "max_epochs": 1}])
def test_a_run_without_a_folder_of_its_own_writes_nothing(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))

    assert not files(tmp_path)


class Process:
    """A trainer on one rank; asking for the folder is a collective."""

    world_size, fast_dev_run, loggers = 2, False, (None,)

    def __init__(self, rank, folder):
        self.global_rank, self.is_global_zero, self.folder, self.asked = rank, rank == 0, folder, 0

    @property
    def log_dir(self):
        self.asked += 1
        return self.folder


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_writes_and_all_ask_for_the_folder(tmp_path, rank):
    data = Numbered()
    data.trainer = Process(rank, str(tmp_path))
    data.setup("fit")

    assert data.trainer.asked == 1
    assert files(tmp_path) == (EVIDENCE if rank == 0 else set())


def test_without_a_trainer_or_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ready()
    data.trainer = on_rank(0, world=1, folder=None)
    data.setup("fit")

    assert not files(tmp_path)


class Own(LabelNoise):
    """What somebody writes in a hurry."""

    def __init__(self, change):
        self.change = change

    def corrupt(self, targets, num_classes, seed, images=None):
        return self.change(targets)


def test_noise_of_ones_own_may_write_in_place():
    data = ready(noise=Own(lambda targets: targets.index_fill_(0, torch.arange(0, SAMPLES, 2), 0)))
    assert data.clean_targets.tolist() == LABELS.tolist() == (torch.arange(SAMPLES) % CLASSES).tolist()
    assert data.realized_noise_rate == 0.25  # half of the even samples had another label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda targets: targets[:9],
            r"Own.corrupt has to return labels, int64 \(60,\), but returned torch.int64 \(9,\)",
        ),
        (lambda targets: targets.float(), r"but returned torch.float32 \(60,\)"),
        (lambda targets: targets.numpy(), "but returned ndarray"),
        (lambda targets: targets + 1, "the labels of Own"),
    ],
)
def test_noise_of_ones_own_has_to_return_labels(change, message):
    with pytest.raises(NoisyLabelError, match=message):
        ready(noise=Own(change))


def test_nothing_to_validate_is_refused(tmp_path):
    data = FeaturesDataModule(features_file(tmp_path), num_classes=CLASSES)
    module = make_module(nn.CrossEntropyLoss())
    with pytest.raises(
        NoisyLabelError, match="has neither a validation nor a test set, so there is nothing to validate"
    ):
        make_trainer(tmp_path).validate(module, data, verbose=False)


def features_file(folder):
    path = folder / "features.npz"
    np.savez(path, x=np.ones((SAMPLES, 2), np.float32), y=LABELS.numpy())
    return path
