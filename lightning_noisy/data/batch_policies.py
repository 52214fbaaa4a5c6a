"""AutoAugment and RandAugment of whole batches: samples that draw the same operation get it together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torchvision.transforms import v2
from typing_extensions import override

from lightning_noisy.data.batch_transforms import BatchTransform, Draws, beside
from lightning_noisy.data.private_api import Operation, augmentation_space, augmented, sub_policies
from lightning_noisy.errors import check_argument

_NOTHING = Operation("Identity", 0.0)


class BatchPolicy(BatchTransform):
    """Operations of torchvision, drawn for each sample on its own; bytes (B, C, H, W) to bytes.

    In each step every sample has an operation with a strength and a sign. Those with the same one are taken out of the
    batch, transformed together and put back: the pixels are those of the operation on each image alone.
    """

    fill: float
    """Value of pixels that come from outside."""

    @abstractmethod
    def steps(self, side: tuple[int, int], draws: Draws) -> Iterator[tuple[list[Operation], Tensor]]:
        """The operations that there are in each step, and which of them each sample has, int64 (B,).

        Args:
            side: Height and width of the images.
            draws: Random numbers of the samples.
        """

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Augment a batch."""
        bytes_in = images.dtype == torch.uint8 and images.ndim == 4
        check_argument(bytes_in, "images", "bytes (B, C, H, W)", f"{images.dtype} {tuple(images.shape)}")
        made = images.clone()
        for operations, drawn in self.steps((images.shape[2], images.shape[3]), self.needed(draws)):
            order, counts = drawn.argsort(stable=True), torch.bincount(drawn, minlength=len(operations))
            for operation, rows in zip(operations, torch.split(order, counts.tolist()), strict=True):
                if len(rows) and operation.name != "Identity":
                    rows = beside(images, rows)
                    made.index_copy_(0, rows, augmented(made.index_select(0, rows), operation, self.fill))
        return made


class BatchRandAugment(BatchPolicy):
    """``num_ops`` of 14 operations, each equally likely and of one strength.

    Args:
        num_ops: Operations, one after the other.
        magnitude: Their strength, an int in [0, 30].
        fill: Value of pixels that come from outside.

    References:
        Cubuk et al., RandAugment: Practical automated data augmentation, NeurIPS 2020.
    """

    def __init__(self, num_ops: int, magnitude: int, fill: float) -> None:
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.fill = fill

    @override
    def steps(self, side: tuple[int, int], draws: Draws) -> Iterator[tuple[list[Operation], Tensor]]:
        space = _rand_space(side, self.magnitude)
        for _ in range(self.num_ops):
            yield _both(space), _drawn(space, draws.integers(len(space)), draws.integers(2))


class BatchAutoAugment(BatchPolicy):
    """One of 25 pairs of operations, each with a probability and a strength of its own.

    Args:
        policy: Which 25.
        fill: Value of pixels that come from outside.

    References:
        Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019.
    """

    def __init__(self, policy: v2.AutoAugmentPolicy, fill: float) -> None:
        self.policy = policy
        self.fill = fill

    @override
    def steps(self, side: tuple[int, int], draws: Draws) -> Iterator[tuple[list[Operation], Tensor]]:
        positions = _auto_space(side, self.policy)
        which = draws.integers(len(positions[0]))
        for position in positions:
            pairs = [pair for _, pair in position]
            probability = torch.tensor([likely for likely, _ in position], dtype=torch.float64)
            happens, drawn = draws.uniform() < probability[which], _drawn(pairs, which, draws.integers(2))
            yield [_NOTHING, *_both(pairs)], torch.where(happens, 1 + drawn, 0)


Pair = tuple[Operation, Operation]
"""An operation with its strength, and with the opposite one where it has a sign."""


@cache
def _rand_space(side: tuple[int, int], magnitude: int) -> list[Pair]:
    space = augmentation_space(v2.RandAugment, 31, *side)
    return [_pair(name, strengths, signed, magnitude) for name, (strengths, signed) in space.items()]


@cache
def _auto_space(side: tuple[int, int], policy: v2.AutoAugmentPolicy) -> list[list[tuple[float, Pair]]]:
    """By position in the sub-policies: probability and operation of each."""
    space = augmentation_space(v2.AutoAugment, 10, *side)
    return [
        [(probability, _pair(name, *space[name], strength or 0)) for name, probability, strength in column]
        for column in zip(*sub_policies(policy), strict=True)
    ]


def _both(pairs: list[Pair]) -> list[Operation]:
    return [operation for pair in pairs for operation in pair]


def _drawn(pairs: list[Pair], which: Tensor, sign: Tensor) -> Tensor:
    """Positions among :func:`_both`; what has no sign stands there twice and is drawn in its first place."""
    signed = torch.tensor([first != second for first, second in pairs])
    return 2 * which + sign * signed[which]


def _pair(name: str, strengths: Tensor | None, signed: bool, at: int) -> Pair:
    strength = 0.0 if strengths is None else float(strengths[at])
    return Operation(name, strength), Operation(name, -strength if signed else strength)
