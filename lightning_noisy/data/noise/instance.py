"""Noise that depends on the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.data.noise.base import NOISE_STREAM, Images, LabelNoise
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.instance_noise import instance_probabilities, standard_normal, truncated_normal
from lightning_noisy.functional.noise import as_targets, check_num_classes, check_rate
from lightning_noisy.functional.random import hash_uniform, sample_categorical

_CHUNK = 2**21  # pixels held at once: 16 MiB of float64
_RATES, _WEIGHTS, _LABELS = 1, 2, 3  # keep the three kinds of draws apart


class InstanceDependentNoise(LabelNoise):
    r"""Instance-dependent noise: how likely a label flips, and to which class, depends on the image.

    For an image x of S pixels (times channels) with label y:

    .. math:: q \sim \mathcal N(r, \sigma^2) \text{ within } [0, 1], \qquad P(\tilde y = y) = 1 - q, \qquad
              P(\tilde y = j) = q \operatorname{softmax}_{k \ne y} \Big(\frac{x^\top W^{(y)}}{c}\Big)_j

    with a fixed matrix :math:`W^{(y)}` (S, K) of standard normal draws for each class y. The expected noise rate is the
    mean of the truncated normal distribution: 0.2055 for a rate of 0.2, 0.4000 for 0.4.

    Images are taken as the data set holds them, before any transform: bytes 0 to 255 in the data modules of
    torchvision's data sets. The softmax is almost one-hot then, and since images have much in common, most flipped
    labels of a class go to a few others. The authors' code does not scale its inputs, but their files are not
    published, so ``scale`` is open; on CIFAR-10 bytes and pixels in [0, 1] give nearly the same counts (3 to 6 wrong
    classes for each class, as in the label files of DAL).

    The :math:`W^{(y)}` are functions of the seed and never held together, which would take 245 MB for CIFAR-100; that
    of one class has 8 S K bytes. Labels are computed in float64, so that machines differ in a label only where its draw
    is within rounding of a boundary, about once in a million data sets.

    Args:
        rate: Mean flip rate r in [0, 1].
        std: Standard deviation of the flip rates, at least 0.
        scale: What pixels are divided by, c > 0: 1 takes bytes as they are, 255 takes them to [0, 1].

    Raises:
        NoisyLabelError: An argument outside its range; at :meth:`corrupt`, no images, or images of different sizes.

    References:
        Xia et al., Part-dependent Label Noise: Towards Instance-dependent Label Noise, NeurIPS 2020, Algorithm 2.
    """

    def __init__(self, rate: float, std: float = 0.1, scale: float = 1.0) -> None:
        check_rate(rate)
        check_argument(std >= 0, "std", "a float of at least 0", std)
        check_argument(scale > 0, "scale", "a float above 0", scale)
        self.rate: float = float(rate)
        self.std = float(std)
        self.scale = float(scale)

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`. Images are read once each, class by class."""
        check_num_classes(num_classes)
        targets = as_targets(targets, num_classes)
        if images is None:
            raise NoisyLabelError(
                "InstanceDependentNoise looks at the images, but got none: pass `images=dataset.data.__getitem__` or "
                "another function from index to image to `corrupt`, or give the noise to a data module."
            )
        position = torch.arange(len(targets))
        flip_rates = truncated_normal(hash_uniform(seed, NOISE_STREAM, _RATES, position), self.rate, self.std)
        uniform = hash_uniform(seed, NOISE_STREAM, _LABELS, position)
        clean = targets.cpu()
        noisy = clean.clone()
        features = len(_pixels(images(0))) if len(targets) else 0
        for label in sorted(set(clean.tolist())):
            weights = _class_weights(seed, label, features, num_classes)
            rows = (clean == label).nonzero().squeeze(1)
            for part in rows.split(max(1, _CHUNK // features)):
                scores = _matrix(images, part, features) @ weights / self.scale
                noisy[part] = sample_categorical(instance_probabilities(scores, label, flip_rates[part]), uniform[part])
        return noisy.to(targets.device)


def _class_weights(seed: int, label: int, features: int, num_classes: int) -> Tensor:
    """Standard normal draws (S, K) of a class."""
    rows, columns = torch.arange(features).unsqueeze(1), torch.arange(num_classes)
    return standard_normal(hash_uniform(seed, NOISE_STREAM, _WEIGHTS, label, rows, columns))


def _matrix(images: Images, rows: Tensor, features: int) -> Tensor:
    """The images of some rows, float64 (B, S)."""
    flat = [_pixels(images(index)) for index in rows.tolist()]
    other = next((i for i, pixels in enumerate(flat) if len(pixels) != features), None)
    if other is not None:
        raise NoisyLabelError(
            f"InstanceDependentNoise needs images of one size, but image 0 has {features} values and image "
            f"{int(rows[other])} has {len(flat[other])}: resize them first."
        )
    return torch.stack(flat).double()


def _pixels(image: Any) -> Tensor:
    """An image, a tensor or anything that numpy reads, as a vector."""
    return (image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))).reshape(-1)
