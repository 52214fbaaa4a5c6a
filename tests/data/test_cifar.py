import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from lightning_noisy.data import CIFAR10DataModule, cifar
from lightning_noisy.errors import NoisyLabelError

MEAN = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
STD = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)
TRAINING, TEST = 300, 7


def encoded(count, offset):
    """Image n, (32, 32, 3): channel 0 holds the row + 1, channel 1 the column + 1, channel 2 the image's number."""
    rows, columns = np.meshgrid(np.arange(1, 33), np.arange(1, 33), indexing="ij")
    images = [np.stack([rows, columns, np.full((32, 32), (n + offset) % 250 + 1)], axis=2) for n in range(count)]
    return np.stack(images).astype(np.uint8)


class Torchvision:
    """Stands in for torchvision's data set."""

    calls: list

    def __init__(self, root, train=True, download=False):
        Torchvision.calls.append((root, train, download))
        count = TRAINING if train else TEST
        self.data = encoded(count, 0 if train else 100)
        self.targets = [n % 10 for n in range(count)]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    Torchvision.calls = []
    monkeypatch.setattr(cifar, "CIFAR10", Torchvision)


def ready(**options):
    data = CIFAR10DataModule("folder", **{"batch_size": 50, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def read(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def pixels(images):
    """Bytes again, from what the papers' normalisation makes of them."""
    values = (images.double().numpy() * STD + MEAN) * 255
    assert np.abs(values - values.round()).max() < 1e-3
    return values.round().astype(int)


def test_training_images_are_cropped_after_padding_by_4_and_flipped():
    data = ready()
    images, target, index = read(data.train_dataloader())
    original = encoded(TRAINING, 0).transpose(0, 3, 1, 2)
    crops, flips = [], 0
    for found, n in zip(pixels(images), index.tolist(), strict=True):
        row, column = found[0, 16, 16] - 1, found[1, 16, 16] - 1
        flipped = found[1, 16, 17] < found[1, 16, 16]
        top, left = row - 16 + 4, column - (15 if flipped else 16) + 4
        padded = np.pad(original[n], ((0, 0), (4, 4), (4, 4)))
        expected = padded[:, top : top + 32, left : left + 32]
        assert np.array_equal(found, expected[:, :, ::-1] if flipped else expected)
        crops.append((top, left))
        flips += flipped

    assert torch.equal(target, index % 10)
    assert [{place[axis] for place in crops} for axis in range(2)] == [set(range(9))] * 2
    assert 0.4 < flips / TRAINING < 0.6


def test_evaluation_is_the_whole_image_normalised():
    images, target = read(ready().test_dataloader())

    expected = (encoded(TEST, 100).transpose(0, 3, 1, 2) / 255 - MEAN) / STD
    assert images.dtype == torch.float32
    assert np.abs(images.double().numpy() - expected).max() < 1e-5
    assert target.tolist() == list(range(TEST))


def test_the_validation_split_is_not_augmented():
    images, _ = read(ready(val_fraction=0.1).val_dataloader()[0])

    assert len(images) == 30
    assert (pixels(images)[:, :2] == encoded(1, 0).transpose(0, 3, 1, 2)[:, :2]).all()


def test_both_parts_come_from_the_folder_without_a_download():
    data = CIFAR10DataModule("folder", download=True)
    data.setup("fit")

    assert sorted(Torchvision.calls) == [("folder", False, False), ("folder", True, False)]


@pytest.mark.parametrize("download", [True, False])
def test_data_are_downloaded_when_asked_for(download):
    CIFAR10DataModule("folder", download=download).prepare_data()

    assert Torchvision.calls == ([("folder", True, True)] if download else [])


def test_missing_data_are_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "CIFAR10", CIFAR10)
    data = CIFAR10DataModule(str(tmp_path / "nowhere"))
    data.prepare_data()

    with pytest.raises(NoisyLabelError) as error:
        data.setup("fit")
    message = str(error.value)
    assert f"CIFAR-10 is not in '{tmp_path / 'nowhere'}'" in message
    assert "`download=True`" in message
    assert "\n" not in message
