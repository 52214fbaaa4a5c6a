"""A backbone whose features are an embedding of the classes' number."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_noisy.networks.feature_width import feature_width


class ProjectedBackbone(nn.Module):
    """A backbone with a perceptron of one hidden layer behind it, which embeds its features.

    Args:
        backbone: Maps images to features (B, D), with an int attribute ``num_features`` = D.
        num_features: Width of the embedding.

    Raises:
        NoisyLabelError: A backbone without ``num_features``.
    """

    def __init__(self, backbone: nn.Module, num_features: int) -> None:
        super().__init__()
        width = feature_width(backbone)
        self.backbone = backbone
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_features))
        self.num_features = num_features
        for layer in (self.projector[0], self.projector[2]):
            nn.init.kaiming_normal_(cast(Tensor, layer.weight))
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to the embedding (B, ``num_features``)."""
        return cast(Tensor, self.projector(self.backbone(images)))
