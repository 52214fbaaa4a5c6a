"""What the plain CNNs of the literature are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import nn


def convolutions(
    channels: Sequence[int], padding: int = 1, activation: type[nn.ReLU] | type[nn.LeakyReLU] = nn.ReLU
) -> Iterator[nn.Module]:
    """3x3 convolutions with bias from each number of channels to the next.

    Args:
        channels: Numbers of channels, from the input on.
        padding: Pixels of zeros around each input; 1 keeps the size, 0 takes two pixels from it.
        activation: ``nn.ReLU``, or ``nn.LeakyReLU`` with its slope of 0.01.

    Yields:
        For each convolution: the convolution, batch normalization, the activation.
    """
    for before, after in pairwise(channels):
        yield nn.Conv2d(before, after, kernel_size=3, padding=padding)
        yield nn.BatchNorm2d(after)
        yield activation(inplace=True)
