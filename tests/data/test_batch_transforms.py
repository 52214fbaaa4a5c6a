"""Transforms of batches against one image at a time in NumPy, with the same draws."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from lightning_noisy.data.batch_transforms import (
    BatchTransform,
    Compose,
    Draws,
    Normalize,
    RandomCrop,
    RandomFlip,
    Unchanged,
)
from lightning_noisy.data.batch_views import EachImage, Views
from lightning_noisy.data.cutout import Cutout
from lightning_noisy.data.epoch_index import at_epoch
from lightning_noisy.data.feature_noise import FeatureNoise
from lightning_noisy.data.image_datasets import TrainingDataset
from lightning_noisy.data.in_memory import InMemoryDataset, collate
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.data.views import StrongAugment, batch_view_transform
from lightning_noisy.errors import NoisyLabelError

COUNT, CHANNELS, SIDE = 40, 3, 8
IMAGES = torch.randint(
    0, 256, (COUNT, CHANNELS, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def draws(index=None, epoch=2, seed=5, stream=0):
    index = torch.arange(COUNT) if index is None else index
    return Draws(seed, torch.full_like(index, epoch), index, stream)


def test_draws_depend_on_seed_epoch_index_view_and_their_number_alone():
    several = draws(torch.tensor([7, 3, 7]))
    first, second = several.uniform(), several.uniform()
    assert first[0] == first[2] != first[1]
    assert not torch.equal(first, second)
    assert torch.equal(draws(torch.tensor([3])).uniform(), first[1:2])
    for other in (draws(epoch=3), draws(seed=6), draws(stream=1), draws().view(2)):
        assert not (other.uniform() == draws().uniform()).any()
    assert all(0 <= seed < 2**63 for seed in draws().seeds())


@pytest.mark.parametrize("count", [1, 2, 9])
def test_integers_are_equally_likely(count):
    many = torch.arange(20_000)
    seen = Draws(0, torch.zeros_like(many), many).integers(count).bincount(minlength=count)
    assert len(seen) == count
    expected = len(many) / count
    assert (seen - expected).abs().max() < 5 * expected**0.5


@pytest.mark.parametrize(("padding", "fill"), [(2, 0), (4, 0), (0, 0), (1, 9)])
def test_a_crop_is_a_window_of_the_padded_image(padding, fill):
    made = RandomCrop(SIDE, padding, fill)(IMAGES, draws())
    same = draws()
    top, left = same.integers(2 * padding + 1).tolist(), same.integers(2 * padding + 1).tolist()
    for image, y, x, crop in zip(IMAGES.numpy(), top, left, made.numpy(), strict=True):
        padded = np.pad(image, [(0, 0), (padding, padding), (padding, padding)], constant_values=fill)
        np.testing.assert_array_equal(crop, padded[:, y : y + SIDE, x : x + SIDE])
    assert made.dtype == torch.uint8
    assert made.shape == IMAGES.shape


@pytest.mark.parametrize(("padding", "shape"), [(2, (8, 8)), (7, (8, 8)), (3, (8, 5)), (0, (8, 8))])
def test_a_crop_by_reflection_has_torchvision_s_pixels(padding, shape):
    images = IMAGES[:, :, : shape[0], : shape[1]]
    made = RandomCrop(5, padding, padding_mode="reflect")(images, draws())
    same = draws()
    top, left = (same.integers(side + 2 * padding - 4).tolist() for side in shape)
    for image, y, x, crop in zip(images, top, left, made, strict=True):
        padded = v2.functional.pad(image, [padding] * 4, padding_mode="reflect")
        assert torch.equal(crop, v2.functional.crop(padded, y, x, 5, 5))
    assert made.dtype == torch.uint8


def test_a_crop_by_reflection_needs_more_pixels_than_it_adds():
    with pytest.raises(NoisyLabelError, match="`padding` to be less than the side of images of 8 x 8, but got 8"):
        RandomCrop(SIDE, 8, padding_mode="reflect")(IMAGES, draws())
    with pytest.raises(NoisyLabelError, match="`padding_mode` to be 'constant' or 'reflect'"):
        RandomCrop(SIDE, 2, padding_mode="edge")


def test_a_crop_may_be_smaller_and_of_floats():
    floats = IMAGES.float() / 7
    made = RandomCrop(5, 1, fill=-0.5)(floats, draws())
    same = draws()
    top, left = same.integers(6).tolist(), same.integers(6).tolist()
    for image, y, x, crop in zip(floats.numpy(), top, left, made.numpy(), strict=True):
        padded = np.pad(image, [(0, 0), (1, 1), (1, 1)], constant_values=-0.5)
        np.testing.assert_array_equal(crop, padded[:, y : y + 5, x : x + 5])


def test_half_of_the_images_are_flipped():
    made, flipped = RandomFlip()(IMAGES, draws()), draws().uniform() < 0.5
    for image, turned, result in zip(IMAGES.numpy(), flipped.tolist(), made.numpy(), strict=True):
        np.testing.assert_array_equal(result, image[:, :, ::-1] if turned else image)
    many = torch.arange(10_000)
    ramp = torch.tensor([0, 1], dtype=torch.uint8).expand(len(many), 1, 1, 2)
    rate = RandomFlip()(ramp, Draws(0, torch.zeros_like(many), many))[:, 0, 0, 0].float().mean()
    assert abs(rate - 0.5) < 0.02


def test_cutout_is_a_square_inside_the_image():
    made, same = Cutout(0.5, 128)(IMAGES, draws()), draws()
    top, left = same.integers(5).tolist(), same.integers(5).tolist()
    for image, y, x, result in zip(IMAGES.numpy(), top, left, made.numpy(), strict=True):
        expected = image.copy()
        expected[:, y : y + 4, x : x + 4] = 128
        np.testing.assert_array_equal(result, expected)
    assert {(y, x) for y, x in zip(top, left, strict=True)} > {(top[0], left[0])}
    with pytest.raises(NoisyLabelError, match=r"`share` to be a float in \(0, 1\)"):
        Cutout(1.0, 0)


def test_normalize_is_torchvisions():
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(IMAGES)
    torch.testing.assert_close(Normalize(mean, std)(IMAGES), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(Normalize(mean, std)(IMAGES[0]), expected[0], rtol=1e-6, atol=1e-6)


def jitter(image):
    return image.float() + torch.rand(1)


PIPELINES = {
    "weak": lambda: Compose([RandomCrop(SIDE, 2), RandomFlip(), Cutout(0.4, 3), Normalize((0.5,) * 3, (0.2,) * 3)]),
    "image by image": lambda: EachImage(jitter),
    "views": lambda: batch_view_transform(
        ["weak", "strong", "weak", jitter], [RandomCrop(SIDE, 2), RandomFlip()], StrongAugment(cutout=0.3), Unchanged()
    ),
    "several views image by image": lambda: EachImage(lambda image: [jitter(image), jitter(image)]),
}


def columns(dataset, keys):
    first = dataset.__getitems__(keys).columns[0]
    return first if isinstance(first, list) else [first]


@pytest.mark.parametrize("name", PIPELINES)
def test_pixels_of_a_sample_are_the_same_whatever_its_batch(name):
    rows, targets = torch.arange(COUNT).flip(0), torch.arange(COUNT) % 4
    dataset = InMemoryDataset(IMAGES, rows, targets, PIPELINES[name](), seed=9, indexed=True)
    whole = columns(dataset, [at_epoch(index, 3) for index in range(COUNT)])
    for keys in ([5], [30, 5, 2], [5, 5]):
        part = columns(dataset, [at_epoch(index, 3) for index in keys])
        for view, everything in zip(part, whole, strict=True):
            assert torch.equal(view, everything[keys])
    other = columns(dataset, [at_epoch(index, 4) for index in range(COUNT)])
    assert all(not torch.equal(view, everything) for view, everything in zip(other, whole, strict=True))
    assert all(not torch.equal(view, whole[0]) for view in whole[1:])
    state = torch.get_rng_state()
    columns(dataset, [at_epoch(0, 3)])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["weak", "views"])
def test_loaders_give_whole_batches(name, num_workers):
    rows, targets = torch.arange(COUNT).flip(0), torch.arange(COUNT) % 4
    dataset = InMemoryDataset(IMAGES, rows, targets, PIPELINES[name](), seed=9, indexed=True)
    loader = ResumableLoader(
        dataset, batch_size=16, sampler=EpochSampler(dataset, seed=1), num_workers=num_workers, collate_fn=collate
    )
    whole = columns(dataset, [at_epoch(index, 0) for index in range(COUNT)])
    seen = []
    for images, target, index in loader:
        views = images if isinstance(images, list) else [images]
        for view, everything in zip(views, whole, strict=True):
            assert torch.equal(view, everything[index])
        assert torch.equal(target, targets[index])
        seen += index.tolist()
    assert sorted(seen) == list(range(COUNT))


def test_a_subset_and_torchs_own_collation_work():
    dataset = InMemoryDataset(IMAGES, torch.arange(COUNT), torch.arange(COUNT) % 4, Unchanged(), indexed=True)
    images, target, index = next(iter(DataLoader(Subset(dataset, [3, 7, 9]), batch_size=3)))
    assert index.tolist() == [3, 7, 9]
    assert torch.equal(images, IMAGES[[3, 7, 9]])
    assert target.tolist() == [3, 3, 1]
    image, label, position = dataset[4]
    assert torch.equal(image, IMAGES[4])
    assert (int(label), int(position)) == (0, 4)


class NoSync(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what would stop an accelerator."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::item"), name
        return function(*args, **(kwargs or {}))


def test_transforms_of_batches_read_nothing_back():
    many = draws()
    with NoSync():
        PIPELINES["weak"]()(IMAGES, many)
        Views([RandomFlip(), RandomCrop(SIDE, 1)])(IMAGES, many)


class NoTransfer(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses tensors that go from one device to another."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        devices = {value.device for value in args if isinstance(value, torch.Tensor) and value.ndim > 0}
        wanted = (kwargs or {}).get("device")
        if function.name() == "aten::_to_copy" and wanted is not None:
            devices.add(torch.device(wanted))
        assert len(devices) < 2, (function.name(), devices)
        return function(*args, **(kwargs or {}))


def test_what_a_transform_needs_comes_to_a_device_once():
    weak, there = PIPELINES["weak"](), torch.device("meta")
    index = torch.arange(COUNT, device=there)
    images = IMAGES.to(there)
    weak(images, draws(index))
    with NoTransfer():
        made = weak(images, draws(index))
    assert (made.device, made.dtype, made.shape) == (there, torch.float32, IMAGES.shape)


def test_every_transform_is_one_of_batches():
    assert all(issubclass(kind, BatchTransform) for kind in (Compose, Cutout, EachImage, Normalize, RandomCrop, Views))


@pytest.mark.parametrize("transform", [RandomCrop(SIDE, 1), RandomFlip(), Cutout(0.5, 0), EachImage(jitter)])
def test_a_transform_of_batches_says_what_it_is_for(transform):
    dataset = TrainingDataset(IMAGES.__getitem__, torch.arange(COUNT) % 4, transform)
    with pytest.raises(NoisyLabelError, match=f"{type(transform).__name__} transforms batches of data in memory"):
        dataset[0]


def test_what_a_data_set_holds_is_not_changed():
    before = IMAGES.clone()
    dataset = InMemoryDataset(IMAGES, torch.arange(COUNT), torch.arange(COUNT), Unchanged())
    dataset.__getitems__([1, 2]).columns[0].zero_()
    assert torch.equal(IMAGES, before)


FEATURES = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0))


def test_many_draws_of_a_sample_are_its_own():
    many = draws().uniforms(700)
    assert many.shape == (COUNT, 700)
    assert ((many >= 0) & (many < 1)).all()
    assert len(many.unique()) == many.numel()
    means = many.mean(dim=1)
    assert ((means - 0.5).abs() < 5 / (12 * 700) ** 0.5).all()
    some = draws(torch.tensor([9, 2]))
    assert torch.equal(some.uniforms(700), many[[9, 2]])
    assert not (some.uniforms(700) == many[[9, 2]]).any()  # the next ones
    assert torch.equal(draws().uniforms(3), many[:, :3])  # whatever their number


@pytest.mark.parametrize(("std", "dropout"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.4), (2.0, 0.3)])
def test_noise_of_features_has_its_moments(std, dropout):
    features = torch.full((COUNT, 2000), 3.0)
    noisy = FeatureNoise(std, dropout)(features, draws())
    dropped = noisy == 0
    assert abs(dropped.float().mean() - dropout) < 0.01
    kept = (noisy[~dropped] - 3).double()
    assert abs(kept.mean()) < 5 * std / len(kept) ** 0.5 + 1e-12
    assert abs(kept.std() - std) < 0.01
    if std:
        assert abs((kept.abs() < std).double().mean() - 0.6827) < 0.01  # normal, not merely of that deviation
        assert abs((kept.pow(4).mean() / std**4) - 3) < 0.1
    assert (features == 3).all()
    assert noisy.dtype == features.dtype


def test_noise_of_a_sample_is_the_same_in_any_batch():
    noise, rows = FeatureNoise(0.7, 0.3), torch.tensor([31, 4, 4, 11])
    whole = noise(FEATURES, draws())
    assert torch.equal(noise(FEATURES[rows], draws(rows)), whole[rows])
    for other in (draws(epoch=3), draws(stream=1), draws(seed=6)):
        assert not torch.equal(noise(FEATURES, other), whole)
    assert noise(FEATURES.double(), draws()).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "name"), [({"std": -1}, "std"), ({"dropout": 1.0}, "dropout"), ({"dropout": -0.1}, "dropout")]
)
def test_noise_that_cannot_be_is_refused(options, name):
    with pytest.raises(NoisyLabelError, match=f"`{name}`"):
        FeatureNoise(**options)
