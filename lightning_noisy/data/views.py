"""Several views of one image, weakly and strongly augmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor
from torchvision.transforms import v2

from lightning_noisy.data.batch_policies import BatchAutoAugment, BatchRandAugment
from lightning_noisy.data.batch_transforms import BatchTransform, Compose
from lightning_noisy.data.batch_views import EachImage, Views
from lightning_noisy.data.cutout import Cutout
from lightning_noisy.data.labeled_images import Transform
from lightning_noisy.errors import check_argument, check_count

# For a callable that returns a class of objects, jsonargparse would want that class, so these return Any.
View = Literal["weak", "strong"] | Callable[[Any], Any]
"""A view by the name that a data module knows it by, or what makes it of a raw image: a tensor (C, H, W)."""

Augmentation = Callable[[Any], Any]
"""From bytes, uint8 (C, H, W), to bytes."""

_GRAY = 128
_POLICIES = {
    "cifar10": v2.AutoAugmentPolicy.CIFAR10,
    "imagenet": v2.AutoAugmentPolicy.IMAGENET,
    "svhn": v2.AutoAugmentPolicy.SVHN,
}


class MultiView:
    """Several views of an image: a list with what each transform makes of it.

    Under a data module of this package the views are drawn one after the other from the generator that is seeded with
    (seed, epoch, index). They differ, since none of them starts where another did.

    Args:
        transforms: One for each view, each from a raw image to a tensor.

    Raises:
        NoisyLabelError: There is none.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        check_argument(len(transforms) > 0, "transforms", "at least one transform", transforms)
        self.transforms = tuple(transforms)

    def __call__(self, image: Any) -> list[Tensor]:
        """The views of an image, in the order of the transforms."""
        return [transform(image) for transform in self.transforms]


class StrongAugment:
    """What makes a view strong: AutoAugment or RandAugment, and on request a gray square over a part of the image.

    Everything is drawn from torch's generator. The operations are torchvision's, on bytes: uint8 (C, H, W) to the same.

    RandAugment draws ``num_ops`` of 14 operations, each of strength ``magnitude``, as published. DISC's has 16, applies
    each with probability 0.5 and draws its strength from 1 to m - 1.

    Args:
        policy: ``"cifar10"``, ``"imagenet"`` or ``"svhn"``, the published policies of AutoAugment, or ``"rand"``.
        num_ops: Operations of RandAugment, at least 1.
        magnitude: Their strength, an int in [0, 30].
        cutout: Side of the square as a share of the image's, in [0, 1); 0 leaves it out. It lies inside the image; the
            paper's may stick out.

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019;
        Cubuk et al., RandAugment: Practical automated data augmentation, NeurIPS 2020;
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.

    Example::

        StrongAugment("rand", num_ops=1, magnitude=3, cutout=0.5)  # of GeneralizedJensenShannonLoss on CIFAR
    """

    def __init__(
        self,
        policy: Literal["cifar10", "imagenet", "svhn", "rand"] = "rand",
        num_ops: int = 2,
        magnitude: int = 10,
        cutout: float = 0.0,
    ) -> None:
        check_argument(policy in (*_POLICIES, "rand"), "policy", "'cifar10', 'imagenet', 'svhn' or 'rand'", policy)
        check_count(num_ops, "num_ops")
        check_argument(0 <= magnitude <= 30, "magnitude", "an int in [0, 30]", magnitude)
        check_argument(0 <= cutout < 1, "cutout", "a float in [0, 1)", cutout)
        random = v2.RandAugment(num_ops, magnitude, fill=_GRAY) if policy == "rand" else None
        steps = [random or v2.AutoAugment(_POLICIES[policy], fill=_GRAY)]
        if cutout > 0:
            steps.append(v2.RandomErasing(p=1.0, scale=(cutout**2, cutout**2), ratio=(1.0, 1.0), value=_GRAY))
        self.policy = policy
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.cutout = cutout
        self._augment = v2.Compose(steps)

    def batched(self) -> list[BatchTransform]:
        """The same for a batch in memory."""
        policy: BatchTransform
        if self.policy == "rand":
            policy = BatchRandAugment(self.num_ops, self.magnitude, _GRAY)
        else:
            policy = BatchAutoAugment(_POLICIES[self.policy], _GRAY)
        return [policy, *([Cutout(self.cutout, _GRAY)] if self.cutout > 0 else [])]

    def __call__(self, image: Tensor) -> Tensor:
        """Augment an image, uint8 (C, H, W)."""
        augmented: Tensor = self._augment(image)
        return augmented


def check_views(views: Sequence[View]) -> None:
    """Refuse views that cannot be made.

    Raises:
        NoisyLabelError: None, or one that is neither ``"weak"`` nor ``"strong"`` nor a transform.
    """
    known = not isinstance(views, str) and len(views) > 0
    known = known and all(view in ("weak", "strong") or callable(view) for view in views)
    check_argument(known, "views", "a list of 'weak', 'strong' or transforms", views)


def view_transform(
    views: Sequence[View], geometry: Sequence[Any], strong: Augmentation, finish: Transform
) -> Callable[[Any], Tensor | list[Tensor]]:
    """What makes the views of a training image: a tensor for one view, a list of tensors for several.

    Args:
        views: See :func:`check_views`.
        geometry: Crops and flips of a weak view, from a raw image to bytes.
        strong: What follows them in a strong view.
        finish: From bytes, uint8 (C, H, W), to the network's input.
    """
    named: dict[Any, Transform] = {
        "weak": v2.Compose([*geometry, finish]),
        "strong": v2.Compose([*geometry, strong, finish]),
    }
    transforms = [view if callable(view) else named[view] for view in views]
    return transforms[0] if len(transforms) == 1 else MultiView(transforms)


def batch_view_transform(
    views: Sequence[View], geometry: Sequence[BatchTransform], strong: Augmentation, finish: BatchTransform
) -> BatchTransform:
    """The same for images in memory: from a batch of bytes to one view or a list of them, each a batch.

    Args:
        views: See :func:`check_views`.
        geometry: Crops and flips of a weak view.
        strong: What follows them in a strong view.
        finish: From bytes, uint8 (B, C, H, W), to the network's input.
    """
    stronger = strong.batched() if isinstance(strong, StrongAugment) else [EachImage(strong)]
    return named_views(views, Compose([*geometry, finish]), Compose([*geometry, *stronger, finish]))


def named_views(views: Sequence[View], weak: BatchTransform, strong: BatchTransform) -> BatchTransform:
    """From a batch to one view or a list of them, by their names or each by a transform of its own.

    Args:
        views: See :func:`check_views`.
        weak: What makes a weak view of a batch.
        strong: What makes a strong one.
    """
    named: dict[Any, BatchTransform] = {"weak": weak, "strong": strong}
    transforms = [EachImage(view) if callable(view) else named[view] for view in views]
    return transforms[0] if len(transforms) == 1 else Views(transforms)
