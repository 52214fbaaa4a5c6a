"""Everything that the data modules use of torchvision beyond what it documents: the operations of its policies.

``tests/data/test_batch_policies.py`` fails when a version no longer has them.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torchvision.transforms import v2


class Operation(NamedTuple):
    """One that AutoAugment and RandAugment are made of."""

    name: str
    strength: float


def augmentation_space(
    kind: type[v2.AutoAugment | v2.RandAugment], bins: int, height: int, width: int
) -> dict[str, tuple[Tensor | None, bool]]:
    """Operations of torchvision: name -> strengths by bin (None where it has none), and whether there is a sign."""
    space = kind._AUGMENTATION_SPACE
    return {name: (strengths(bins, height, width), signed) for name, (strengths, signed) in space.items()}


def sub_policies(policy: v2.AutoAugmentPolicy) -> list[tuple[tuple[str, float, int | None], ...]]:
    """The pairs of operations of AutoAugment: name, probability, bin of the strength."""
    return list(v2.AutoAugment(policy)._policies)


def augmented(images: Tensor, operation: Operation, fill: float) -> Tensor:
    """Images, bytes (..., C, H, W), after an operation, as torchvision's policies apply it."""
    applied: Tensor = _POLICY._apply_image_or_video_transform(
        images, operation.name, operation.strength, v2.InterpolationMode.NEAREST, {"others": fill}
    )
    return applied


_POLICY = v2.RandAugment()
