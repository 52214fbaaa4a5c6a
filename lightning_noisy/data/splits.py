"""Which labels a run trains on, and which part of the training set is kept for validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_noisy.checks import check_labels
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.random import hash_uniform

_SPLIT_STREAM = 0x73706C6974  # keeps the split apart from other draws under the same seed


def training_labels(
    images: LabeledImages,
    noise: LabelNoise | None,
    num_classes: int,
    seed: int,
    owner: str,
    class_names: Sequence[str] | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Clean labels of a training set, where known, and those of the run, each int64 (N,).

    Args:
        images: The training set.
        noise: Label noise; None keeps the labels.
        num_classes: K.
        seed: Seed of the noise.
        owner: Name of the data module, for messages.
        class_names: Names of the classes, where they are known.

    Raises:
        NoisyLabelError: The set is empty, or comes with noisy labels and gets noise as well; noise that makes no labels
            of it.
    """
    given = images.labels if images.noisy is None else images.noisy
    assert given is not None, "images without labels"
    if len(given) == 0:
        raise NoisyLabelError(f"The training set of {owner} is empty.")
    if noise is None:
        return images.labels, given
    if images.noisy is not None:
        raise NoisyLabelError(
            f"The training set of {owner} comes with noisy labels, but got noise={noise!r} as well: leave it out."
        )
    noisy = noise.corrupt_images(images, given.clone(), num_classes, seed, class_names)
    _check_noisy(noisy, given, num_classes, type(noise).__name__)
    return images.labels, noisy


def _check_noisy(noisy: object, given: Tensor, num_classes: int, owner: str) -> None:
    """Refuse what label noise, maybe of one's own, returns in place of labels."""
    if not isinstance(noisy, Tensor) or noisy.dtype != torch.int64 or noisy.shape != given.shape:
        came = f"{noisy.dtype} {tuple(noisy.shape)}" if isinstance(noisy, Tensor) else type(noisy).__name__
        raise NoisyLabelError(f"{owner}.corrupt has to return labels, int64 ({len(given)},), but returned {came}.")
    check_labels(noisy, num_classes, f"the labels of {owner}")


def known_labels_of(clean: Tensor | None, owner: str) -> Tensor:
    """Clean labels of a validation split that is asked not to be noisy.

    Raises:
        NoisyLabelError: Nobody knows them.
    """
    if clean is None:
        raise NoisyLabelError(
            f"Expected argument `noisy_val` to be true, as nobody knows the clean labels of {owner}, but got False: "
            "leave it out."
        )
    return clean


def split_rows(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the training and the validation split, each ascending, int64: a function of the seed.

    Args:
        count: Samples N.
        fraction: Share of the validation split, in [0, 1).
        seed: Seed of the split.

    Raises:
        NoisyLabelError: No sample is left for training.
    """
    size = round(fraction * count)
    if size == count:
        raise NoisyLabelError(
            f"Expected argument `val_fraction` to leave training samples, but got {fraction}, which takes all {count}: "
            "lower it."
        )
    order = hash_uniform(seed, _SPLIT_STREAM, torch.arange(count)).argsort()
    return order[size:].sort().values, order[:size].sort().values
