"""A hidden layer between a backbone and its head."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_noisy.errors import check_count
from lightning_noisy.networks.batch_norm import LoneSampleBatchNorm1d
from lightning_noisy.networks.feature_width import feature_width


def hidden_layer(num_features: int, width: int) -> nn.Sequential:
    """Linear, batch normalization, ReLU; the linear layer starts Kaiming normal, its bias at zero.

    Args:
        num_features: Size of what goes in.
        width: Size of what comes out.
    """
    linear = nn.Linear(num_features, width)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, LoneSampleBatchNorm1d(width), nn.ReLU(inplace=True))


class HiddenLayerBackbone(nn.Module):
    """A backbone with a hidden layer behind it: linear, batch normalization, ReLU.

    With a linear head on top it is the classifier of Jo-SRC and SED, whose hidden layer is twice as wide as the
    features: 1024 behind ResNet-18. It starts Kaiming normal (fan in) with bias zero. The official code starts the last
    layer that way too, which is the head's business here. A training batch of one sample works in it, see
    :class:`~lightning_noisy.networks.LoneSampleBatchNorm1d`.

    Shape:
        What the backbone takes, to features (B, ``width``).

    Args:
        backbone: Maps images to features (B, D), with an int attribute ``num_features`` = D.
        width: Width of the layer, at least 1.

    Attributes:
        num_features: ``width``.

    Raises:
        NoisyLabelError: ``width`` is not positive; a backbone without ``num_features``.

    References:
        Yao et al., Jo-SRC: A Contrastive Approach for Combating Noisy Labels, CVPR 2021.
    """

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        check_count(width, "width")
        self.backbone = backbone
        self.projection = hidden_layer(feature_width(backbone), width)
        self.num_features = width

    def forward(self, images: Any) -> Tensor:
        """Map what the backbone takes to features (B, ``width``)."""
        return cast(Tensor, self.projection(self.backbone(images)))
