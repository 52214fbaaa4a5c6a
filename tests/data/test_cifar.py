import numpy as np
import pytest
import torch
from torch import nn
from torchvision import datasets

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import CIFAR10DataModule, CIFAR100DataModule, SymmetricNoise, cifar
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import write_cifar
from tests.foreign import make_trainer
from tests.small import MemoryLogger

TRAINING, TEST = 300, 7
MODULES = {"CIFAR10": CIFAR10DataModule, "CIFAR100": CIFAR100DataModule}
STATISTICS = {
    "CIFAR10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "CIFAR100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}
CLASSES = {"CIFAR10": 10, "CIFAR100": 100}


def encoded(count, offset):
    """Image n, (32, 32, 3): channel 0 holds the row + 1, channel 1 the column + 1, channel 2 the image's number."""
    rows, columns = np.meshgrid(np.arange(1, 33), np.arange(1, 33), indexing="ij")
    images = [np.stack([rows, columns, np.full((32, 32), (n + offset) % 250 + 1)], axis=2) for n in range(count)]
    return np.stack(images).astype(np.uint8)


class Torchvision:
    """Stands in for torchvision's data set."""

    calls: list

    def __init__(self, root, train=True, download=False):
        self.calls.append((root, train, download))
        count = TRAINING if train else TEST
        self.data = encoded(count, 0 if train else 100)
        self.targets = [n % 10 for n in range(count)]


@pytest.fixture(params=MODULES)
def name(request, monkeypatch):
    """One of the data sets, of which torchvision has a stand-in."""

    def refuse(*args, **options):
        raise AssertionError("the other data set was opened")

    Torchvision.calls = []
    for other in MODULES:
        monkeypatch.setattr(cifar, other, Torchvision if other == request.param else refuse)
    return request.param


def ready(name, **options):
    data = MODULES[name]("folder", **{"batch_size": 50, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def read(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def statistics(name):
    return [np.array(values).reshape(3, 1, 1) for values in STATISTICS[name]]


OTHERS = {"imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "none": ([0.0] * 3, [1.0] * 3)}


def pixels(name, images, normalization=None):
    """Bytes again, from what the papers' normalization makes of them."""
    of_another = OTHERS.get(normalization)
    mean, std = statistics(name) if of_another is None else (np.array(v).reshape(3, 1, 1) for v in of_another)
    values = (images.double().numpy() * std + mean) * 255
    assert np.abs(values - values.round()).max() < 1e-3
    return values.round().astype(int)


@pytest.mark.parametrize(
    ("normalization", "mode"), [("data_set", "constant"), ("none", "reflect"), ("imagenet", "constant")]
)
def test_training_images_are_cropped_after_padding_by_4_and_flipped(name, normalization, mode):
    data = ready(name, normalization=normalization, padding_mode=mode)
    images, target, index = read(data.train_dataloader())
    original = encoded(TRAINING, 0).transpose(0, 3, 1, 2)
    crops, flips = [], 0
    for found, n in zip(pixels(name, images, normalization), index.tolist(), strict=True):
        row, column = found[0, 16, 16] - 1, found[1, 16, 16] - 1
        flipped = found[1, 16, 17] < found[1, 16, 16]
        top, left = row - 16 + 4, column - (15 if flipped else 16) + 4
        padded = np.pad(original[n], ((0, 0), (4, 4), (4, 4)), mode)
        expected = padded[:, top : top + 32, left : left + 32]
        assert np.array_equal(found, expected[:, :, ::-1] if flipped else expected)
        crops.append((top, left))
        flips += flipped

    assert torch.equal(target, index % 10)
    assert [{place[axis] for place in crops} for axis in range(2)] == [set(range(9))] * 2
    assert 0.4 < flips / TRAINING < 0.6


@pytest.mark.parametrize("normalization", ["data_set", *OTHERS])
def test_evaluation_is_the_whole_image_normalized(name, normalization):
    images, target = read(ready(name, normalization=normalization).test_dataloader())
    mean, std = (np.array(v).reshape(3, 1, 1) for v in OTHERS.get(normalization, STATISTICS[name]))

    expected = (encoded(TEST, 100).transpose(0, 3, 1, 2) / 255 - mean) / std
    assert images.dtype == torch.float32
    assert np.abs(images.double().numpy() - expected).max() < 1e-5
    assert target.tolist() == list(range(TEST))
    assert target.dtype == torch.int64


def test_the_validation_split_is_not_augmented(name):
    images, _ = read(ready(name, val_fraction=0.1).val_dataloader()[0])

    assert len(images) == 30
    assert (pixels(name, images)[:, :2] == encoded(1, 0).transpose(0, 3, 1, 2)[:, :2]).all()


@pytest.mark.parametrize("argument", ["normalization", "padding_mode"])
def test_an_unknown_word_is_refused(name, argument):
    with pytest.raises(NoisyLabelError, match=f"`{argument}` to be '"):
        MODULES[name]("folder", **{argument: "unknown"})


def test_both_parts_come_from_the_folder_without_a_download(name):
    data = MODULES[name]("folder", download=True)
    data.setup("fit")

    assert sorted(Torchvision.calls) == [("folder", False, False), ("folder", True, False)]


@pytest.mark.parametrize("download", [True, False])
def test_data_are_downloaded_when_asked_for(name, download):
    MODULES[name]("folder", download=download).prepare_data()

    assert Torchvision.calls == ([("folder", True, True)] if download else [])


def test_arguments_arrive(name):
    noise = SymmetricNoise(0.2)
    data = MODULES[name](
        "folder",
        False,
        noise=noise,
        batch_size=3,
        num_workers=1,
        val_fraction=0.5,
        noisy_val=False,
        seed=9,
        pin_memory=True,
    )

    assert (data.root, data.download, data.noise, data.batch_size) == ("folder", False, noise, 3)
    assert (data.num_workers, data.val_fraction, data.noisy_val, data.seed, data.pin_memory) == (1, 0.5, False, 9, True)


@pytest.mark.parametrize(
    ("published", "title", "folder"),
    [("CIFAR10", "CIFAR-10", "cifar-10-batches-py"), ("CIFAR100", "CIFAR-100", "cifar-100-python")],
)
def test_missing_data_are_named_with_the_way_out(tmp_path, published, title, folder):
    data = MODULES[published](str(tmp_path / "nowhere"))
    data.prepare_data()

    with pytest.raises(NoisyLabelError) as error:
        data.setup("fit")
    message = str(error.value)
    assert f"{title} is not in '{tmp_path / 'nowhere'}': expected `{tmp_path / 'nowhere'}/{folder}`" in message
    assert "`download=True`" in message
    assert "\n" not in message


@pytest.mark.parametrize("published", MODULES)
def test_the_published_files_are_read_and_trained_on(tmp_path, monkeypatch, published):
    generator = np.random.default_rng(0)
    counts = {"train": 40, "test": 12}
    images = {part: generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for part, n in counts.items()}
    labels = {part: generator.permutation(np.arange(n) * 7 % CLASSES[published]) for part, n in counts.items()}
    write_cifar(monkeypatch, tmp_path, published, images, labels)
    assert len(getattr(datasets, published)(tmp_path)) == 40

    data = MODULES[published](str(tmp_path), noise=SymmetricNoise(0.4), batch_size=8, num_workers=0, seed=0)
    logger = MemoryLogger()
    trainer = make_trainer(tmp_path, max_epochs=1, logger=logger)
    trainer.fit(
        NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, nn.CrossEntropyLoss(), data.num_classes), datamodule=data
    )

    assert data.num_classes == CLASSES[published]
    assert data.clean_targets.tolist() == labels["train"].tolist()
    assert (
        data.noisy_targets.tolist() == SymmetricNoise(0.4).corrupt(data.clean_targets, CLASSES[published], 0).tolist()
    )
    assert set(logger.seen["test/acc"]) == {0}
    assert ("test/acc_top5" in logger.seen) == (published == "CIFAR100")
    found, target = read(data.test_dataloader())
    assert np.array_equal(pixels(published, found), images["test"].transpose(0, 3, 1, 2))
    assert target.tolist() == labels["test"].tolist()
