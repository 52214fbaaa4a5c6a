"""Poisoned training sets, and test sets with a trigger in every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from lightning_noisy.data.backdoor.trigger import BackdoorTrigger
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.errors import NoisyLabelError, check_argument

PixelRange = tuple[float, float] | None
"""The values of a black and of a white pixel; None are those of bytes, 0 and 255."""

_LOOKED_AT = 8  # evaluated images in which a trigger has to show


class StampedImages:
    """Images of which some show a trigger.

    Args:
        image: ``image(index)`` loads one: bytes (C, H, W), a float tensor (C, H, W) or a PIL image.
        stamped: Which show it, bool (N,).
        trigger: The trigger.
        pixel_range: Black and white.
    """

    def __init__(
        self, image: Callable[[int], Any], stamped: Tensor, trigger: BackdoorTrigger, pixel_range: PixelRange
    ) -> None:
        self.image = image
        self.stamped = stamped
        self.trigger = trigger
        self.pixel_range = pixel_range

    def __call__(self, index: int) -> Any:
        """The image at a position, of the type that it is loaded as."""
        image = self.image(index)
        if not self.stamped[index]:
            return image
        if isinstance(image, Tensor):
            return _stamp(image, 3, self.trigger, self.pixel_range)
        return to_pil_image(_stamp(pil_to_tensor(image), 3, self.trigger, self.pixel_range))


def with_trigger(
    images: LabeledImages, stamped: Tensor, trigger: BackdoorTrigger, pixel_range: PixelRange
) -> LabeledImages:
    """The same set with a trigger in some of its images.

    Args:
        images: The set; it stays as it is.
        stamped: Which images show the trigger, bool (N,).
        trigger: The trigger.
        pixel_range: Black and white.
    """
    if images.samples is None:
        return replace(images, image=StampedImages(images.image, stamped, trigger, pixel_range))
    samples = images.samples.clone()
    samples[stamped] = _stamp(samples[stamped], 4, trigger, pixel_range)
    return replace(images, image=samples.__getitem__, samples=samples)


def poisoned_training_set(
    images: LabeledImages,
    clean: Tensor | None,
    noisy: Tensor,
    trigger: BackdoorTrigger,
    num_classes: int,
    pixel_range: PixelRange,
    seed: int,
) -> tuple[LabeledImages, Tensor, Tensor]:
    """A training set with a backdoor.

    Args:
        images: The training set.
        clean: Clean labels, int64 (N,), None where nobody knows them.
        noisy: Labels of the run before the backdoor, int64 (N,).
        trigger: The backdoor.
        num_classes: K.
        pixel_range: Black and white.
        seed: Seed of which images are poisoned.

    Returns:
        The images, the labels of the run, int64 (N,), and which samples are poisoned, bool (N,).

    Raises:
        NoisyLabelError: The target class is none of the K, more images would be poisoned than there are of other
            classes, or the samples are no images.
    """
    check_argument(trigger.target < num_classes, "target", f"a class in [0, {num_classes})", trigger.target)
    poisoned = trigger.choose(noisy if clean is None else clean, seed)
    return with_trigger(images, poisoned, trigger, pixel_range), noisy.masked_fill(poisoned, trigger.target), poisoned


def attacked_test_set(
    test: LabeledImages | None,
    trigger: BackdoorTrigger,
    pixel_range: PixelRange,
    dataset_of: Callable[[LabeledImages, Tensor, Tensor], Dataset[Any]],
) -> Dataset[Any]:
    """The images of a test set that do not belong to the target class, with the trigger in each, and their own labels.

    Args:
        test: The test set.
        trigger: The backdoor.
        pixel_range: Black and white.
        dataset_of: Makes a data set for evaluation of images, positions among them and the labels there.

    Raises:
        NoisyLabelError: There is no test set, all of it belongs to the target class, or evaluated images are the same
            with the trigger and without.
    """
    if test is None:
        raise NoisyLabelError("A backdoor's success is measured on the test set, but there is none: give one.")
    assert test.labels is not None
    rows = (test.labels != trigger.target).nonzero().squeeze(1)
    if len(rows) == 0:
        raise NoisyLabelError(f"All test images belong to the target class {trigger.target}: choose another `target`.")
    everywhere = torch.ones(len(test.labels), dtype=torch.bool)
    stamped = with_trigger(test, everywhere, trigger, pixel_range)
    plain, attacked = (dataset_of(images, rows, test.labels[rows]) for images in (test, stamped))
    if all(torch.equal(plain[i][0], attacked[i][0]) for i in range(min(_LOOKED_AT, len(rows)))):
        raise NoisyLabelError(
            f"{trigger!r} does not show in evaluated images: if they are cropped, give it a `margin`, else make it "
            "stronger."
        )
    return attacked


def _stamp(images: Any, ndim: int, trigger: BackdoorTrigger, pixel_range: PixelRange) -> Tensor:
    """Images with the trigger, a tensor of ``ndim`` dimensions, the last three (C, H, W).

    Raises:
        NoisyLabelError: They are something else, such as features, or no bytes and nobody said what black and white is.
    """
    if not isinstance(images, Tensor) or images.ndim != ndim:
        came = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else f"a {type(images).__name__}"
        wanted = "(N, C, H, W)" if ndim == 4 else "(C, H, W), or a PIL image"
        raise NoisyLabelError(f"A backdoor's trigger is put on pixels: expected {wanted}, but got {came}.")
    if pixel_range is not None:
        return trigger.stamp(images, *pixel_range)
    if images.dtype != torch.uint8:
        raise NoisyLabelError(
            f"A backdoor's trigger has black and white pixels, but nobody knows them of {images.dtype} images: set "
            "`pixel_range` of the data module, e.g. to (0.0, 1.0)."
        )
    return trigger.stamp(images)
