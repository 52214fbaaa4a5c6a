import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import datasets

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import FashionMNISTDataModule, MNISTDataModule, SymmetricNoise, mnist
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import write_idx, write_mnist
from tests.foreign import make_trainer
from tests.small import MemoryLogger

MODULES = {"MNIST": MNISTDataModule, "FashionMNIST": FashionMNISTDataModule}
STATISTICS = {"MNIST": (0.1307, 0.3081), "FashionMNIST": (0.2860, 0.3530)}
TITLES = {"MNIST": "MNIST", "FashionMNIST": "Fashion-MNIST"}
each = pytest.mark.parametrize("name", MODULES)


def ready(name, root, **options):
    data = MODULES[name](str(root), **{"batch_size": 16, "num_workers": 0, "seed": 0, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def read(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def pixels(name, images):
    """Bytes (N, 28, 28) again, from what the papers' normalization makes of them."""
    mean, std = STATISTICS[name]
    values = (images.squeeze(1).double().numpy() * std + mean) * 255
    assert np.abs(values - values.round()).max() < 1e-3
    return values.round().astype(int)


@each
@pytest.mark.parametrize("packed", [False, True])
def test_the_published_files_are_read_as_they_are(tmp_path, name, packed):
    written = write_mnist(tmp_path, name, packed)
    data = ready(name, tmp_path)

    images, target, index = read(data.train_dataloader())
    assert images.shape == (40, 1, 28, 28)
    assert (images.dtype, target.dtype) == (torch.float32, torch.int64)
    assert np.array_equal(pixels(name, images), written["train"][0][index])
    assert np.array_equal(target, written["train"][1][index])
    images, target = read(data.test_dataloader())
    assert np.array_equal(pixels(name, images), written["t10k"][0])
    assert np.array_equal(target, written["t10k"][1])


@each
def test_a_run(tmp_path, name):
    write_mnist(tmp_path, name, packed=True)
    data = MODULES[name](str(tmp_path), noise=SymmetricNoise(0.4), batch_size=8, num_workers=0, val_fraction=0.2)
    logger = MemoryLogger()
    trainer = make_trainer(tmp_path, max_epochs=1, logger=logger)
    trainer.fit(NoisyLabelModule(SmallCNN(1, 4, 8), LinearHead, nn.CrossEntropyLoss(), 10), datamodule=data)

    assert data.num_classes == 10
    assert {"train/loss", "val/acc", "test/acc"} <= set(logger.seen)
    assert trainer.global_step == 4


@each
def test_torchvision_reads_what_the_stand_ins_write(tmp_path, name):
    written = write_mnist(tmp_path, name)
    for part, (images, labels) in zip((True, False), written.values(), strict=True):
        found = getattr(datasets, name)(tmp_path, train=part)
        assert np.array_equal(found.data, images)
        assert np.array_equal(found.targets, labels)


# Augmentation


def marked(count):
    """Images (N, 28, 28) whose every pixel says its column, brighter ones lower: shifts and flips can be read off."""
    rows, columns = np.meshgrid(np.arange(28), np.arange(28), indexing="ij")
    return np.repeat((1 + columns + 8 * rows)[None], count, axis=0).astype(np.uint8)


def write_marked(root, name, count):
    write_mnist(root, name)
    raw = Path(root, name, "raw")
    write_idx(raw / "train-images-idx3-ubyte", marked(count))
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(count, dtype=np.uint8))


@each
def test_images_are_not_augmented_by_default(tmp_path, name):
    write_marked(tmp_path, name, 20)
    images, _, _ = read(ready(name, tmp_path).train_dataloader())

    assert np.array_equal(pixels(name, images), marked(20))


def test_clothes_are_cropped_after_padding_by_2_and_flipped_when_asked_for(tmp_path):
    write_marked(tmp_path, "FashionMNIST", 300)
    data = ready("FashionMNIST", tmp_path, augment=True, val_fraction=0.1)
    images, _, _ = read(data.train_dataloader())
    padded = np.pad(marked(1)[0], 2)
    crops = {(i, j): padded[i : i + 28, j : j + 28].astype(int) for i in range(5) for j in range(5)}
    kinds = {image.tobytes(): (place, False) for place, image in crops.items()}
    kinds |= {image[:, ::-1].tobytes(): (place, True) for place, image in crops.items()}

    found = [kinds[image.tobytes()] for image in pixels("FashionMNIST", images)]

    assert {place for place, _ in found} == set(crops)
    assert 0.4 < np.mean([flipped for _, flipped in found]) < 0.6
    plain, _ = read(data.val_dataloader()[0])
    assert np.array_equal(pixels("FashionMNIST", plain), marked(30))


# Where the files lie


class Torchvision:
    """Stands in for torchvision's data set."""

    def __init__(self, root, train=True, download=False):
        self.calls.append((root, train, download))


@each
@pytest.mark.parametrize("download", [True, False])
def test_data_are_downloaded_when_asked_for(monkeypatch, name, download):
    Torchvision.calls = []
    monkeypatch.setattr(mnist, name, Torchvision)
    MODULES[name]("folder", download=download).prepare_data()

    assert Torchvision.calls == ([("folder", True, True)] if download else [])


@each
def test_arguments_arrive(name):
    noise = SymmetricNoise(0.2)
    options = {"num_workers": 1, "val_fraction": 0.5, "noisy_val": False, "seed": 9, "pin_memory": True}
    data = MODULES[name]("folder", False, noise=noise, batch_size=3, **options)

    assert (data.root, data.download, data.noise, data.batch_size) == ("folder", False, noise, 3)
    assert {option: getattr(data, option) for option in options} == options


def refused(name, root, action="setup"):
    data = MODULES[name](str(root))
    with pytest.raises(NoisyLabelError) as error:
        data.setup("fit") if action == "setup" else data.prepare_data()
    assert "\n" not in str(error.value)
    return str(error.value)


@each
def test_missing_data_are_named_with_the_way_out(tmp_path, name):
    MODULES[name](str(tmp_path / "nowhere")).prepare_data()
    message = refused(name, tmp_path / "nowhere")

    assert f"{TITLES[name]} is not in '{tmp_path}/nowhere': expected `{tmp_path}/nowhere/{name}/raw`" in message
    assert "`download=True`" in message


@each
def test_files_of_the_sister_set_are_not_taken(tmp_path, name):
    other = next(sister for sister in MODULES if sister != name)
    write_mnist(tmp_path, other)

    assert f"{TITLES[name]} is not in" in refused(name, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03", gzip.compress(b"not unpacked, only renamed", mtime=0)])
def test_damaged_files_are_refused(tmp_path, content):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)

    assert "MNIST is not in" in refused("MNIST", tmp_path)


def test_a_cut_file_is_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])

    assert "MNIST is not in" in refused("MNIST", tmp_path)


def test_unpacking_leaves_what_is_there(tmp_path):
    written = write_mnist(tmp_path)
    write_mnist(tmp_path / "other", packed=True)
    for packed in (tmp_path / "other" / "MNIST" / "raw").iterdir():
        shutil.copy(packed, tmp_path / "MNIST" / "raw")
        (tmp_path / "MNIST" / "raw" / packed.name).write_bytes(b"never opened")

    images, _ = read(ready("MNIST", tmp_path).test_dataloader())
    assert np.array_equal(pixels("MNIST", images), written["t10k"][0])


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_mnist(tmp_path, packed=True)

    assert len(ready("MNIST", "~").noisy_targets) == 40


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip"])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, damage):
    write_mnist(tmp_path, packed=True)
    folder = tmp_path / "MNIST" / "raw"
    path = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        for place in range(1000, 1100):
            content[place] ^= 0xFF
    else:
        content = b"plain"
    path.write_bytes(content)

    message = refused("MNIST", tmp_path, "prepare_data")
    assert f"Cannot unpack '{path}'" in message
    assert "`gunzip`" in message
    assert not (folder / "train-images-idx3-ubyte").exists()
    assert not list(folder.glob(".*"))
