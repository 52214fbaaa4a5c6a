import hashlib
import pickle

import numpy as np
from torchvision import datasets

NUM_TRAIN, NUM_TEST = 40, 20


class DummyCIFAR10:
    """What our data module uses of ``torchvision.datasets.CIFAR10``: 40 training and 20 test images of noise."""

    num_classes = 10

    def __init__(self, root, train=True, download=False):
        count = NUM_TRAIN if train else NUM_TEST
        self.data = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [7 * i % self.num_classes for i in range(count)]


class DummyCIFAR100(DummyCIFAR10):
    """The same of ``torchvision.datasets.CIFAR100``: labels in [0, 100)."""

    num_classes = 100


def write_cifar(monkeypatch, root, name, images, labels):
    """Files of the layout in which ``name`` is published, and checksums that torchvision accepts them by.

    ``images[part]`` uint8 (N, 32, 32, 3) and ``labels[part]`` for the parts "train" and "test".
    """
    published = getattr(datasets, name)
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    for part, listed in {"train": "train_list", "test": "test_list"}.items():
        files = [file for file, _ in getattr(published, listed)]
        blocks = zip(
            files, np.array_split(images[part], len(files)), np.array_split(labels[part], len(files)), strict=True
        )
        sums = [[file, _write(folder / file, _block(name, pixels, block))] for file, pixels, block in blocks]
        monkeypatch.setattr(published, listed, sums)
    key = published.meta["key"]
    digest = _write(folder / published.meta["filename"], {key: ["a class"]})
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": digest})


def _block(name, images, labels):
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # channel by channel, rows within
    if name == "CIFAR10":
        return {"data": rows, "labels": labels.tolist()}
    return {"data": rows, "fine_labels": labels.tolist(), "coarse_labels": (labels // 5).tolist()}


def _write(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()
