"""The small CNN of Co-teaching+ on CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count

_IMAGE_SIZE = 32
_FLAT = 16 * 5**2


class LeNet(nn.Module):
    """LeNet-5 with ReLU and maxima, as Co-teaching+ has it on CIFAR-10; its fifth layer is the head's linear one.

    Two 5x5 convolutions without padding, 6-pool-16-pool, each followed by ReLU, pools being 2x2 maxima; then flatten
    (400), linear to 120, ReLU, linear to 84, ReLU. Nothing is normalized, and all layers start as torch's. 61,156
    parameters with three input channels; 62,006 with ``nn.Linear(84, 10)`` on top.

    Shape:
        Images (B, C, 32, 32) to features (B, 84).

    Args:
        in_channels: Channels C of the images.

    Attributes:
        num_features: Size of the features, 84.

    Raises:
        NoisyLabelError: ``in_channels`` is not positive, or images are not 32 x 32.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the IEEE 1998;
        Yu et al., How does Disagreement Help Generalization against Label Corruption?, ICML 2019.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        check_count(in_channels, "in_channels")
        self.num_features = 84
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(_FLAT, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, self.num_features),
            nn.ReLU(inplace=True),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, 32, 32) to features (B, 84)."""
        size = tuple(images.shape[-2:])
        check_argument(size == (_IMAGE_SIZE, _IMAGE_SIZE), "images", "32 x 32 pixels: resize or use SmallCNN", size)
        features: Tensor = self.layers(images)
        return features
