"""The 9-layer CNN of Co-teaching."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.networks.convolutions import convolutions

_SMALLEST_IMAGE = 28


class CNN9(nn.Module):
    """9-layer CNN for MNIST and CIFAR: nine convolutions, the linear layer of the head not counted.

    3x3 convolutions with bias, each followed by batch normalization and leaky ReLU (slope 0.01):
    128-128-128-pool-dropout-256-256-256-pool-dropout-512-256-128-global average. Pools are 2x2 maxima, dropout drops
    whole maps, the last three convolutions have no padding. Weights start as torch's.

    4,433,280 parameters with three input channels; 4,434,570 with ``nn.Linear(128, 10)`` on top, the network of
    Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels" (NeurIPS 2018).
    The official code drops maps in evaluation as well, an oversight; here only in training.

    Shape:
        Images (B, C, H, W) with H and W at least 28 (32 for training batches of one sample) to features (B, 128).

    Args:
        in_channels: Channels C of the images.
        dropout: Probability of dropping a map after each pool in training.

    Attributes:
        num_features: Size of the features, 128.

    Raises:
        NoisyLabelError: ``in_channels`` is not positive, ``dropout`` is outside [0, 1), or images are too small.
    """

    def __init__(self, in_channels: int = 3, dropout: float = 0.25) -> None:
        super().__init__()
        check_count(in_channels, "in_channels")
        check_argument(0 <= dropout < 1, "dropout", "a float in [0, 1)", dropout)
        self.num_features = 128
        self.layers = nn.Sequential(
            *convolutions((in_channels, 128, 128, 128), activation=nn.LeakyReLU),
            nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
            *convolutions((128, 256, 256, 256), activation=nn.LeakyReLU),
            nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
            *convolutions((256, 512, 256, 128), padding=0, activation=nn.LeakyReLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, 128)."""
        size = tuple(images.shape[-2:])
        check_argument(min(size) >= _SMALLEST_IMAGE, "images", "at least 28 x 28 pixels: resize or use SmallCNN", size)
        features: Tensor = self.layers(images)
        return features
