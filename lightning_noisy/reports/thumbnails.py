"""Small pictures that a page carries within itself."""

from __future__ import annotations

import base64
import io

from PIL import Image

_SIDE = 112


def data_url(image: Image.Image) -> str:
    """An image of at most 112 pixels a side as a JPEG in a ``data:`` URL; tiny ones are enlarged without blur."""
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    times = _SIDE // max(small.size)
    if times > 1:
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
