"""Views of what has no geometry."""

from __future__ import annotations

from torch import Tensor

from lightning_noisy.data.batch_transforms import BatchTransform, Draws, beside
from lightning_noisy.errors import check_argument


class FeatureNoise(BatchTransform):
    """Adds normal noise to features and sets some of them to zero.

    Args:
        std: Standard deviation of the noise, at least 0.
        dropout: Probability with which a feature is set to zero, in [0, 1). The others are not scaled.

    Raises:
        NoisyLabelError: An argument outside its range.
    """

    def __init__(self, std: float = 0.0, dropout: float = 0.0) -> None:
        check_argument(std >= 0, "std", "a float >= 0", std)
        check_argument(0 <= dropout < 1, "dropout", "a float in [0, 1)", dropout)
        self.std = std
        self.dropout = dropout

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """Disturb features (B, D)."""
        draws, width = self.needed(draws), images.shape[1]
        if self.std > 0:
            images = images + beside(images, draws.normals(width).mul_(self.std)).to(images.dtype)
        if self.dropout > 0:
            images = images.masked_fill(beside(images, draws.uniforms(width) < self.dropout), 0.0)
        return images
