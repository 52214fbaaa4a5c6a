"""Images of classes that the classifier does not know."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.data.noise.base import NOISE_STREAM, Images, LabelNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.noise import as_targets, check_num_classes
from lightning_noisy.functional.random import hash_uniform

_OUTSIDE = 4  # keeps these draws apart from those of the closed set


class OpenSetNoise(LabelNoise):
    """Open-set noise: some images belong to none of the K classes, and each of them gets one of these as a label.

    Clean labels from K on say that an image is an outsider; its label is drawn uniformly from the K classes, so it is
    always wrong. The other images are a training set of their own for ``closed``: they get its noise, with positions
    counted among themselves. With a share o of outsiders and a closed-set noise rate r the total rate is
    ``o + (1 - o) * r``; the rate after which the literature names such noise is r alone.

    Args:
        closed: Noise of the images that belong to the classes; None keeps their labels. ``SymmetricNoise(r)`` and
            ``PairFlipNoise(r)`` give the noise of Jo-SRC and SED.

    Raises:
        NoisyLabelError: At :meth:`corrupt`, what ``closed`` refuses, or no outsider.

    References:
        Wang et al., Iterative Learning with Open-set Noisy Labels, CVPR 2018;
        Yao et al., Jo-SRC: A Contrastive Approach for Combating Noisy Labels, CVPR 2021.
    """

    def __init__(self, closed: LabelNoise | None = None) -> None:
        self.closed = closed

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`; ``targets`` from K on are outsiders."""
        check_num_classes(num_classes)
        targets = as_targets(targets, None)
        outside = targets >= num_classes
        if len(targets) and not bool(outside.any()):
            raise NoisyLabelError(
                f"OpenSetNoise labels images that belong to none of the {num_classes} classes, but every clean label "
                f"is below {num_classes}: use the noise of the closed set itself."
            )
        uniform = hash_uniform(seed, NOISE_STREAM, _OUTSIDE, torch.arange(len(targets), device=targets.device))
        noisy = torch.where(outside, (uniform * num_classes).long(), targets)
        if self.closed is not None:
            inside = (~outside).nonzero().squeeze(1)
            positions = inside.tolist()
            own = None if images is None else lambda index: images(positions[index])
            noisy[inside] = self.closed.corrupt(targets[inside], num_classes, seed, own)
        return noisy
