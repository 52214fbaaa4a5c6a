from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_noisy.data import DigitsDataModule, SymmetricNoise
from lightning_noisy.errors import NoisyLabelError

PIXELS = load_digits().images


def ready(**options):
    data = DigitsDataModule(**{"batch_size": 500, "seed": 0, **options})
    data.setup("fit")
    return data


def read(loader):
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def training(**options):
    images, target, index = read(ready(**options).train_dataloader())
    order = index.argsort()
    return images[order], target[order]


@pytest.fixture(scope="module")
def plain():
    return training(augment=False)


@pytest.fixture(scope="module")
def test_set():
    return read(ready().test_dataloader())


def raw(images, reference):
    """Pixels from 0 to 16 again, by a line through the darkest and brightest pixel of the reference."""
    low, high = reference.min(), reference.max()
    return ((images - low) / (high - low) * 16).round().long().squeeze(1).numpy()


def test_sizes_and_kinds(plain, test_set):
    assert plain[0].shape == (1437, 1, 8, 8)
    assert test_set[0].shape == (360, 1, 8, 8)
    for images, target in (plain, test_set):
        assert images.dtype == torch.float32
        assert target.dtype == torch.int64
        assert target.bincount(minlength=10).shape == (10,)
        assert target.bincount().min() > len(target) / 20
    assert DigitsDataModule.num_classes == 10


def test_both_sets_together_are_the_scans_each_with_its_label(plain, test_set):
    digits = load_digits()
    expected = Counter((image.astype(int).tobytes(), int(y)) for image, y in zip(PIXELS, digits.target, strict=True))

    found = Counter()
    for images, target in (plain, test_set):
        found += Counter(
            (image.astype(int).tobytes(), int(y)) for image, y in zip(raw(images, plain[0]), target, strict=True)
        )
    assert found == expected


def test_images_are_normalized(plain):
    assert abs(plain[0].mean().item()) < 0.02
    assert abs(plain[0].std().item() - 1) < 0.02


@pytest.mark.parametrize("options", [{"seed": 1}, {"seed": 2, "noise": SymmetricNoise(0.9)}, {"val_fraction": 0.5}])
def test_the_test_set_depends_on_nothing(test_set, options):
    images, target = read(ready(**options).test_dataloader())

    assert torch.equal(images, test_set[0])
    assert torch.equal(target, test_set[1])


def test_the_test_set_is_spread_over_the_scans(test_set, plain):
    """The scans come writer by writer: the first or last 360 would be other people's."""
    positions = {image.astype(int).tobytes(): i for i, image in enumerate(PIXELS)}
    found = np.array([positions[image.astype(int).tobytes()] for image in raw(test_set[0], plain[0])])

    assert np.histogram(found, bins=5, range=(0, len(PIXELS)))[0].min() > 40


def test_augmentation_shifts_by_at_most_a_pixel_over_the_background(plain):
    augmented, target = training(seed=4)
    before, after = raw(plain[0], plain[0]), raw(augmented, plain[0])
    shifts = Counter()
    for old, new in zip(before, after, strict=True):
        padded = np.zeros((10, 10), dtype=int)
        padded[1:9, 1:9] = old
        fits = [(i, j) for i in range(3) for j in range(3) if np.array_equal(padded[i : i + 8, j : j + 8], new)]
        assert fits
        shifts[fits[0]] += 1

    assert torch.equal(target, plain[1])
    assert len(shifts) == 9
    assert min(shifts.values()) > 100
    assert augmented.min() == plain[0].min()


def test_augmentation_changes_from_epoch_to_epoch():
    data = ready()
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        images, _, index = read(loader)
        epochs.append(images[index.argsort()])

    assert not torch.equal(*epochs)


def test_evaluation_is_not_augmented(plain):
    data = ready(val_fraction=0.2)
    images, _ = read(data.val_dataloader()[0])
    known = {image.tobytes() for image in plain[0].numpy()}

    assert len(images) == 287
    assert all(image.tobytes() in known for image in images.numpy())


def views_of(epoch=0, **options):
    """The views of all samples in an epoch, in their order."""
    loader = ready(**options).train_dataloader()
    loader.sampler.set_epoch(epoch)
    images, _, index = zip(*loader, strict=True)
    order = torch.cat(index).argsort()
    return [torch.cat(view)[order] for view in zip(*images, strict=True)]


def test_a_strong_view_has_an_empty_square_and_views_differ(plain):
    weak, strong, other = views_of(views=["weak", "strong", "weak"])
    empty = plain[0].min()
    assert torch.equal(weak, training()[0])  # the first view is what a single one would be
    for first, second in ((weak, strong), (weak, other), (strong, other)):
        assert (first != second).flatten(1).any(dim=1).float().mean() > 0.8
    windows = (strong[:, 0] == empty).unfold(1, 3, 1).unfold(2, 3, 1)
    assert windows.all(dim=(3, 4)).any(dim=(1, 2)).all()
    assert (strong == empty).sum() > (weak == empty).sum() + 1000
    again = views_of(views=["weak", "strong", "weak"], batch_size=7)
    assert all(map(torch.equal, again, (weak, strong, other)))
    assert not torch.equal(views_of(1, views=["weak", "strong"])[1], strong)


@pytest.mark.parametrize("views", [[], ["harsh"], "weak"])
def test_views_that_nobody_knows_are_refused(views):
    with pytest.raises(NoisyLabelError, match="`views` to be a list"):
        DigitsDataModule(views=views)
