"""``lightning-noisy predict --images``: image files that belong to no data set."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lightning_noisy.data import UnlabeledImages
from lightning_noisy.errors import NoisyLabelError

SOME_SKIPPED = 3
"""Exit status where predictions are written, but some images could not be read."""


def images_to_predict(config: Namespace, data: Any) -> UnlabeledImages:
    """The images of ``--images`` as the run's data module would evaluate them; its own data are not needed.

    Args:
        config: Arguments of ``predict``.
        data: The data module of the run.

    Raises:
        NoisyLabelError: It does not say what becomes of an image file.
    """
    if not hasattr(data, "photo_transform"):
        name = "a run without `data`" if data is None else type(data).__name__
        raise NoisyLabelError(
            f"`--images` needs to know how the network sees an image file, which {name} does not say: give the run a "
            "data module with a method `photo_transform()` that returns a transform of PIL images."
        )
    options = {name: getattr(data, name) for name in ("batch_size", "num_workers") if hasattr(data, name)}
    return UnlabeledImages(config.images, data.photo_transform(), config.image_column, **options)
