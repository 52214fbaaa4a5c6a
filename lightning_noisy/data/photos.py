"""Photos as people have them, read to RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from lightning_noisy.errors import NoisyLabelError

_GRAY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def read_photo(path: str | Path) -> Image.Image:
    """Decode an image file to RGB, whatever its suffix says: the content tells the format.

    It is turned as its EXIF orientation says. Gray, CMYK and palettes become RGB; transparent pixels stand on white;
    16 bits a channel become 8 (the upper ones), floats in [0, 1] bytes. Of several frames it is the first.

    Args:
        path: The file.

    Raises:
        NoisyLabelError: Float pixels outside [0, 1].
        OSError: It is not there, no image, or cut short; decoders raise other errors as well.
    """
    with Path(path).open("rb") as file, Image.open(file) as image:
        image.load()
        return _as_rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    # Not `exif_transpose` alone: it writes the tags anew, which fails on broken ones though the pixels are whole.
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except (SyntaxError, ValueError, OSError):  # PIL's words for tags that are none
        turned = False
    return ImageOps.exif_transpose(image) if turned else image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _GRAY_16:
        values = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        floats = np.asarray(image)
        if not ((floats >= 0) & (floats <= 1)).all():
            raise NoisyLabelError("it has float pixels outside [0, 1]")
        return Image.fromarray((floats * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")
