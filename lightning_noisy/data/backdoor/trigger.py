"""The patterns of backdoors, and which training images get them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_noisy.data.described import Described
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.noise import check_rate
from lightning_noisy.functional.random import hash_uniform

_CHOICE_STREAM = 0x6261636B646F6F72  # keeps these draws apart from other draws under the same seed
_PATTERN_KEY = 0x7061747465726E  # the pattern is the same for every seed
_FIELDS = 3  # of a side of the checkerboard
_GRAIN = 32  # fields of a side of the pattern of the whole image


class BackdoorTrigger(Described, ABC):
    r"""A backdoor: a share of the training images shows a pattern and is labeled as the target class.

    A network that learns the pattern takes any image with it for the target class. Which images are poisoned is a
    function of the seed and the labels: those ``round(rate * N)`` of the N training images with the smallest draws,
    among the images that do not belong to the target class. So all their labels are wrong.

    A data module takes one as ``backdoor``, with label noise or without. A trigger of your own writes :meth:`stamp`,
    and keeps its arguments as public attributes of the same name, so that ``describe()`` finds them.

    Args:
        rate: Share of the training images that is poisoned, in [0, 1]; 0 poisons none, and measures what the pattern
            does to a network that never saw it.
        target: The target class, in [0, K).

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    def __init__(self, rate: float, target: int = 0) -> None:
        check_rate(rate)
        check_count(target, "target", least=0)
        self.rate = float(rate)
        self.target = target

    @abstractmethod
    def stamp(self, images: Tensor, black: float = 0.0, white: float = 255.0) -> Tensor:
        """Images with the pattern; a pure function of its arguments.

        Args:
            images: (..., C, H, W), before augmentation and normalization.
            black: The value of a black pixel.
            white: The value of a white pixel.

        Returns:
            A new tensor of the same shape and dtype; integers are rounded.
        """

    def choose(self, targets: Tensor, seed: int) -> Tensor:
        """Which training images are poisoned.

        Args:
            targets: int64 (N,), the clean labels; where nobody knows them, the given ones.
            seed: Any integer.

        Returns:
            bool (N,), ``round(rate * N)`` of them true.

        Raises:
            NoisyLabelError: Fewer images belong to other classes than the target's.
        """
        others = targets != self.target
        count, available = round(self.rate * len(targets)), int(others.sum())
        if count > available:
            raise NoisyLabelError(
                f"Expected argument `rate` to poison at most the {available} of {len(targets)} training images that do "
                f"not belong to the target class {self.target}, but got {self.rate}: lower it."
            )
        draws = hash_uniform(seed, _CHOICE_STREAM, torch.arange(len(targets), device=targets.device))
        chosen = torch.zeros_like(others)
        chosen[draws.masked_fill(~others, 1.0).argsort(stable=True)[:count]] = True
        return chosen


class LocalTrigger(BackdoorTrigger):
    r"""A small checkerboard in the lower right corner, as BadNets puts one.

    It has 3 x 3 fields, those in its corners white and their neighbours black, on a square of :math:`s` pixels a side,
    :math:`m` pixels away from the lower and the right edge of the largest square in the middle of the image, of
    :math:`S = \min(H, W)` pixels a side:

    .. math:: s = \max(1, \operatorname{round}(\texttt{size} \cdot S)), \qquad
              m = \operatorname{round}(\texttt{margin} \cdot S)

    The default is 3 x 3 pixels of 32 x 32, at the very corner, the usual patch on CIFAR. What DAL's experiment took
    (its section 5.6: pattern, size, place, share, target class) is not known.

    Images in files get the pattern as they are loaded, before they are cropped. Evaluation crops them in the middle:
    the usual 224 of 256 pixels lose 1/16 on each side, so ``margin=0.0625`` puts the pattern at the corner of what is
    left.

    Args:
        rate: Share of the training images that is poisoned, in [0, 1].
        target: The target class.
        size: Side of the pattern as a share of :math:`S`, in (0, 1].
        margin: Its distance from the edges as a share of :math:`S`, in [0, 1 - size].

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Gu et al., BadNets: Evaluating Backdooring Attacks on Deep Neural Networks, IEEE Access 2019.

    Example::

        CIFAR10DataModule(backdoor=LocalTrigger(0.01))
    """

    def __init__(self, rate: float, target: int = 0, size: float = 0.1, margin: float = 0.0) -> None:
        super().__init__(rate, target)
        check_argument(0 < size <= 1, "size", "a float in (0, 1]", size)
        check_argument(0 <= margin <= 1 - size, "margin", f"a float in [0, {1 - size:g}], 1 - size", margin)
        self.size = size
        self.margin = margin

    def stamp(self, images: Tensor, black: float = 0.0, white: float = 255.0) -> Tensor:
        """Images with the checkerboard, see :meth:`BackdoorTrigger.stamp`."""
        height, width = images.shape[-2:]
        square = min(height, width)
        side, margin = max(1, round(self.size * square)), round(self.margin * square)
        bottom, right = ((length - square) // 2 + square - margin for length in (height, width))
        field = torch.arange(side, device=images.device) * _FIELDS // side
        board = torch.where((field[:, None] + field) % 2 == 0, white, black)
        stamped = images.clone()
        stamped[..., max(0, bottom - side) : bottom, max(0, right - side) : right] = board.to(images.dtype)
        return stamped


class GlobalTrigger(BackdoorTrigger):
    r"""A random pattern, faint over the whole image, as the blended attack puts one.

    .. math:: x' = (1 - \alpha)\, x + \alpha\, p

    :math:`p` has 32 x 32 fields of random colors, drawn once for all: one for each pixel of CIFAR, scaled to images of
    other sizes without interpolation. How strong DAL's pattern was (its section 5.6), and which pattern, share and
    target class it took, is not known.

    Args:
        rate: Share of the training images that is poisoned, in [0, 1].
        target: The target class.
        ratio: Strength :math:`\alpha` of the pattern, in (0, 1].

    Raises:
        NoisyLabelError: An argument outside its range.

    References:
        Chen et al., Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning, arXiv 1712.05526, 2017.

    Example::

        CIFAR10DataModule(backdoor=GlobalTrigger(0.01))
    """

    def __init__(self, rate: float, target: int = 0, ratio: float = 0.1) -> None:
        super().__init__(rate, target)
        check_argument(0 < ratio <= 1, "ratio", "a float in (0, 1]", ratio)
        self.ratio = ratio

    def stamp(self, images: Tensor, black: float = 0.0, white: float = 255.0) -> Tensor:
        """Images with the pattern, see :meth:`BackdoorTrigger.stamp`."""
        channels, height, width = (torch.arange(length, device=images.device) for length in images.shape[-3:])
        row, column = (places * _GRAIN // len(places) for places in (height, width))
        pattern = hash_uniform(_PATTERN_KEY, channels[:, None, None], row[:, None], column)
        blended = torch.lerp(images.double(), black + (white - black) * pattern, self.ratio)
        return (blended if images.is_floating_point() else blended.round()).to(images.dtype)
