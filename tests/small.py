"""A small run of our own module: dropout, augmentation, label noise, seconds."""

import torch
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torchvision.transforms import v2

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import LabeledImages, NoisyDataModule, SymmetricNoise
from lightning_noisy.heads import KANHead, LinearHead
from lightning_noisy.networks import SmallCNN

NUM_CLASSES = 4


class SmallDataModule(NoisyDataModule):
    """Noisy blobs as images (1, 8, 8): 40 for training (48 before the validation split), 16 for test."""

    num_classes = NUM_CLASSES

    def __init__(self, noise=None, num_samples=48, val_fraction=1 / 6, **options):
        super().__init__(noise or SymmetricNoise(0.4), val_fraction=val_fraction, **{"batch_size": 8, **options})
        self.num_samples = num_samples

    def training_images(self):
        return self._images(self.num_samples, 0)

    def test_images(self):
        return self._images(16, 1)

    def training_transform(self):
        return v2.RandomCrop(8, padding=1)

    def evaluation_transform(self):
        return v2.Identity()

    def _images(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
        images = torch.randn(count, 1, 8, 8, generator=generator)
        images[torch.arange(count), 0, 2 * labels, 2 * labels] += 4
        return LabeledImages(images.__getitem__, labels)


def make_module(loss, seed=0, dropout=0.3, head=LinearHead):
    torch.manual_seed(seed)
    return NoisyLabelModule(
        SmallCNN(width=4, num_features=8, dropout=dropout),
        head,
        loss,
        NUM_CLASSES,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.8),
    )


def make_heads(in_features, num_classes):
    """Heads behind one another, ``head.0`` to ``head.2``: linear, linear, KAN."""
    return nn.Sequential(nn.Linear(in_features, 6), nn.Linear(6, 5), KANHead(5, num_classes, normalize=True))


class MemoryLogger(Logger):
    """Keeps what is logged: name -> {epoch: value}."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    name = property(lambda self: "memory")
    version = property(lambda self: 0)

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.seen.setdefault(name, {})[int(metrics["epoch"])] = value

    def log_hyperparams(self, *args, **kwargs):
        pass


def assert_same(left, right, path="state"):
    """Equal bit for bit, tensors and plain values, NaN to NaN."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left.isnan(), right.isnan()) if left.is_floating_point() else True, path
        assert (
            torch.equal(left.nan_to_num(), right.nan_to_num()) if left.is_floating_point() else torch.equal(left, right)
        ), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for position, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{path}[{position}]")
    else:
        assert left == right or (left != left and right != right), f"{path}: {left} != {right}"
