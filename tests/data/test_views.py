import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from lightning_noisy import NoisyLabelModule
from lightning_noisy.data import CIFAR10DataModule, MultiView, StrongAugment, cifar
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.losses import GeneralizedJensenShannonLoss
from lightning_noisy.networks import SmallCNN
from tests._dummies import DummyCIFAR10
from tests.foreign import make_trainer

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
GRADIENT = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(251).to(torch.uint8)


@pytest.fixture
def dummy(monkeypatch):
    monkeypatch.setattr(cifar, "CIFAR10", DummyCIFAR10)


def ready(**options):
    data = CIFAR10DataModule(**{"batch_size": 8, "num_workers": 0, "seed": 0, **options})
    data.setup("fit")
    return data


def by_index(data, epoch=0):
    """All training samples of an epoch: index -> image or list of views."""
    loader = data.train_dataloader()
    iterator = iter(loader)
    loader.sampler.set_epoch(epoch)
    seen = {}
    for images, _, index in iterator:
        for row, i in enumerate(index.tolist()):
            seen[i] = [view[row] for view in images] if isinstance(images, list) else images[row]
    return seen


# MultiView


def test_views_are_those_of_the_transforms_in_their_order():
    views = MultiView([lambda image: image + 1, lambda image: image * 2, lambda image: image])(torch.tensor(5.0))

    assert isinstance(views, list)
    assert [view.item() for view in views] == [6, 10, 5]


def test_no_transform_is_refused():
    with pytest.raises(NoisyLabelError, match="`transforms` to be at least one transform"):
        MultiView([])


# StrongAugment


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn", "rand"])
def test_policies_are_torchvisions(policy):
    strong = StrongAugment(policy, num_ops=3, magnitude=7)
    published = {
        "cifar10": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=128),
        "imagenet": v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=128),
        "svhn": v2.AutoAugment(v2.AutoAugmentPolicy.SVHN, fill=128),
        "rand": v2.RandAugment(3, 7, fill=128),
    }
    changed = 0
    for seed in range(12):
        torch.manual_seed(seed)
        found = strong(GRADIENT)
        torch.manual_seed(seed)
        assert torch.equal(found, published[policy](GRADIENT))
        changed += not torch.equal(found, GRADIENT)
    assert found.dtype == torch.uint8
    assert changed > 6


@pytest.mark.parametrize(("cutout", "side"), [(0.5, 16), (0.15, 5), (0.9, 29)])
def test_cutout_is_a_gray_square(cutout, side):
    strong, places = StrongAugment("rand", 1, 0, cutout), set()
    for seed in range(60):
        torch.manual_seed(seed)
        gray = (strong(torch.full((3, 32, 32), 7, dtype=torch.uint8)) == 128).all(dim=0)
        rows, columns = gray.nonzero().unbind(1)
        if gray.sum() == side**2:  # else an operation has moved the image, or changed its color
            assert rows.max() - rows.min() == columns.max() - columns.min() == side - 1
            places.add((int(rows.min()), int(columns.min())))
    assert len(places) > (10 if side < 29 else 4)


def test_without_cutout_nothing_is_erased():
    torch.manual_seed(0)
    assert not any((StrongAugment("rand", 1, 0)(GRADIENT * 0 + 7) == 128).any() for _ in range(20))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"policy": "cifar"}, "`policy` to be 'cifar10', 'imagenet', 'svhn' or 'rand', but got 'cifar'"),
        ({"num_ops": 0}, "`num_ops` to be an int of at least 1, but got 0"),
        ({"magnitude": 31}, r"`magnitude` to be an int in \[0, 30\], but got 31"),
        ({"magnitude": -1}, r"`magnitude` to be an int in \[0, 30\], but got -1"),
        ({"cutout": 1.0}, r"`cutout` to be a float in \[0, 1\), but got 1.0"),
        ({"cutout": -0.1}, r"`cutout` to be a float in \[0, 1\), but got -0.1"),
    ],
)
def test_bad_arguments_of_the_augmentation(options, match):
    with pytest.raises(NoisyLabelError, match=match):
        StrongAugment(**options)


# Views of a data module


def test_one_view_is_a_tensor_and_several_are_a_list(dummy):
    single, pair = by_index(ready())[3], by_index(ready(views=["weak", "weak"]))[3]

    assert single.shape == (3, 32, 32)
    assert isinstance(pair, list)
    assert torch.equal(pair[0], single)
    assert not torch.equal(pair[0], pair[1])


def test_a_strong_view_is_a_weak_one_that_is_augmented_before_it_is_normalized(dummy):
    weak, strong = by_index(ready())[3], by_index(ready(views=["strong"], strong=lambda pixels: 255 - pixels))[3]
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))

    torch.testing.assert_close((weak + strong) * std + 2 * mean, torch.ones(3, 32, 32), rtol=0, atol=1e-5)


def test_the_strong_augmentation_is_that_of_cifar_unless_given(dummy):
    assert ready().strong.policy == "cifar10"
    found = by_index(ready(views=["strong", "weak"]))
    given = by_index(ready(views=["strong", "weak"], strong=StrongAugment("cifar10")))
    assert all(torch.equal(found[i][0], given[i][0]) for i in range(40))
    weak = by_index(ready())
    assert sum(not torch.equal(found[i][0], weak[i]) for i in range(40)) > 15


def test_an_explicit_transform_gets_the_bytes(dummy):
    data = ready(views=["weak", lambda image: image.clone()])
    original = torch.from_numpy(DummyCIFAR10("", train=True).data).permute(0, 3, 1, 2)

    assert all(torch.equal(views[1], original[i]) for i, views in by_index(data).items())


def test_views_are_a_function_of_seed_epoch_and_index(dummy):
    options = {"views": ["weak", "strong", "strong"], "strong": StrongAugment("rand", 2, 9, cutout=0.3)}
    first = by_index(ready(**options), epoch=2)
    torch.manual_seed(77)
    np.random.seed(3)  # noqa: NPY002
    again = by_index(ready(batch_size=3, num_workers=2, **options), epoch=2)
    later, other = by_index(ready(**options), epoch=3), by_index(ready(**{**options, "seed": 1}), epoch=2)

    for i in range(40):
        assert all(torch.equal(a, b) for a, b in zip(first[i], again[i], strict=True))
        assert not torch.equal(first[i][1], first[i][2])
        for another in (later, other):
            assert not torch.equal(first[i][1], another[i][1])


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn", "rand"])
def test_nothing_is_drawn_from_other_generators(monkeypatch, policy):
    def refuse(*args, **options):
        raise AssertionError("a draw that the data set does not seed")

    for name in ("random", "randint", "uniform", "choice", "shuffle", "sample", "gauss", "betavariate"):
        monkeypatch.setattr(f"random.{name}", refuse)
    for name in ("random", "rand", "randint", "uniform", "choice", "shuffle", "permutation", "beta", "normal"):
        monkeypatch.setattr(f"numpy.random.{name}", refuse)
    monkeypatch.setattr("numpy.random.default_rng", refuse)
    strong = StrongAugment(policy, cutout=0.2)
    chain = v2.Compose([v2.RandomResizedCrop(16), v2.RandomCrop(16, padding=2), v2.RandomHorizontalFlip(), strong])
    for _ in range(60):
        chain(GRADIENT)


@pytest.mark.parametrize("views", [[], "weak", ["weak", "harsh"], [3]])
def test_views_that_nobody_knows_are_refused(views):
    with pytest.raises(NoisyLabelError, match="`views` to be a list of 'weak', 'strong' or transforms, but got"):
        CIFAR10DataModule(views=views)


def test_evaluation_has_one_view(dummy):
    data = ready(views=["weak", "strong"], val_fraction=0.2)
    for loader in (*data.val_dataloader(), data.test_dataloader()):
        images, _ = next(iter(loader))
        assert images.shape == (8, 3, 32, 32)


def test_a_loss_of_views_is_trained(dummy, tmp_path):
    data = CIFAR10DataModule(batch_size=8, num_workers=0, seed=0, views=["strong", "strong"])
    module = NoisyLabelModule(SmallCNN(3, 4, 8), LinearHead, GeneralizedJensenShannonLoss(pi=0.5, num_views=2), 10)
    before = [p.clone() for p in module.parameters()]
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=data)

    assert isinstance(trainer.train_dataloader, ResumableLoader)
    assert 0 < module.history[0]["train/loss"] < 3
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
