"""Tensors as pictures."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor


def picture(image: Tensor) -> Image.Image | None:
    """An image as people see it; None of what is none.

    Args:
        image: (C, H, W) with one or three channels, or (H, W). Bytes are taken as they are; other values are stretched
            so that the lowest is black and the highest white.
    """
    if image.ndim == 2:
        image = image.unsqueeze(0)
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        return None
    if image.dtype != torch.uint8:
        low, high = image.float().aminmax()
        image = ((image.float() - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    shown = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)
