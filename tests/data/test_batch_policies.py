"""AutoAugment and RandAugment of batches against torchvision's, image by image with the same draws."""

from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from lightning_noisy import NoisyLabelError
from lightning_noisy.data import batch_policies
from lightning_noisy.data.batch_policies import BatchAutoAugment, BatchRandAugment
from lightning_noisy.data.batch_transforms import Draws
from lightning_noisy.data.views import StrongAugment

COUNT, GRAY = 120, 128
IMAGES = torch.randint(0, 256, (COUNT, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(count=COUNT, start=0):
    return Draws(3, torch.full((count,), 2), torch.arange(start, start + count))


class Script:
    """What torch draws for one image: integers by their share of the range, floats as they are."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def randint(self, high, size):
        return torch.tensor(int(next(self.numbers) * high))

    def rand(self, size):
        return torch.tensor(next(self.numbers))


def by_torchvision(monkeypatch, augment, image, numbers):
    script = Script(numbers)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", script.randint)
        patch.setattr(torch, "rand", script.rand)
        return augment(image)


SIGNED = {name for name, (_, signed) in v2.AutoAugment._AUGMENTATION_SPACE.items() if signed}


@pytest.mark.parametrize(("num_ops", "magnitude"), [(1, 3), (2, 10), (3, 30)])
def test_rand_augment_has_torchvision_s_pixels(monkeypatch, num_ops, magnitude):
    made = BatchRandAugment(num_ops, magnitude, GRAY)(IMAGES, draws())
    same = draws()
    drawn = [(same.integers(14).tolist(), same.integers(2).tolist()) for _ in range(num_ops)]
    names, augment = list(v2.RandAugment._AUGMENTATION_SPACE), v2.RandAugment(num_ops, magnitude, fill=GRAY)
    for row, image in enumerate(IMAGES):
        numbers = []
        for which, sign in drawn:
            numbers.append((which[row] + 0.5) / 14)
            numbers += [0.2 if sign[row] else 0.8] * (names[which[row]] in SIGNED)
        assert torch.equal(made[row], by_torchvision(monkeypatch, augment, image, numbers)), row


@pytest.mark.parametrize("policy", v2.AutoAugmentPolicy)
def test_auto_augment_has_torchvision_s_pixels(monkeypatch, policy):
    made = BatchAutoAugment(policy, GRAY)(IMAGES, draws())
    same, augment = draws(), v2.AutoAugment(policy, fill=GRAY)
    which = same.integers(25).tolist()
    drawn = [(same.uniform().tolist(), same.integers(2).tolist()) for _ in range(2)]
    for row, image in enumerate(IMAGES):
        numbers = [(which[row] + 0.5) / 25]
        for (happens, sign), (name, probability, _) in zip(drawn, augment._policies[which[row]], strict=True):
            numbers.append(happens[row])
            signed = happens[row] <= probability and name in SIGNED
            numbers += [0.2 if sign[row] else 0.8] * signed
        assert torch.equal(made[row], by_torchvision(monkeypatch, augment, image, numbers)), row


@pytest.mark.parametrize("policy", ["rand", "cifar10"])
def test_pixels_of_a_sample_are_its_own(policy):
    strong = StrongAugment(policy, cutout=0.3).batched()
    assert all(transform.by_batch for transform in strong)
    before, whole, part, some, later = IMAGES.clone(), IMAGES, IMAGES[30:50], draws(), draws(20, 30)
    for transform in strong:
        whole, part = transform(whole, some), transform(part, later)
    assert torch.equal(whole[30:50], part)
    assert torch.equal(IMAGES, before)


def test_operations_signs_and_probabilities_come_as_often_as_they_should():
    many = 20_000
    for operations, drawn in BatchRandAugment(2, 10, GRAY).steps((8, 8), draws(many)):
        seen = Counter()
        for operation, count in zip(operations, drawn.bincount(minlength=len(operations)).tolist(), strict=True):
            seen[operation.name] += count
            if operation.name == "Rotate":
                assert abs(count / many - 1 / 28) < 0.006
        assert all(abs(count / many - 1 / 14) < 0.01 for count in seen.values())
    first, _ = BatchAutoAugment(v2.AutoAugmentPolicy.CIFAR10, GRAY).steps((8, 8), draws(many))
    mean = sum(pair[0][1] for pair in v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies) / 25
    assert abs((first[1] > 0).double().mean() - mean) < 0.015


def test_a_batch_without_an_operation_is_left(monkeypatch):
    monkeypatch.setattr(batch_policies, "augmented", None)
    still = BatchRandAugment(0, 3, GRAY)(IMAGES, draws())
    assert torch.equal(still, IMAGES)


@pytest.mark.parametrize("images", [IMAGES.float(), IMAGES[0]])
def test_what_is_no_batch_of_bytes_is_refused(images):
    with pytest.raises(NoisyLabelError, match=r"`images` to be bytes \(B, C, H, W\)"):
        BatchRandAugment(1, 3, GRAY)(images, draws())
