"""A small CNN for digits, tests and first runs on a laptop."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution, batch normalization, ReLU; the spatial size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SmallCNN(nn.Module):
    """Five 3x3 convolutions with batch normalization and global average pooling.

    ``C - w - w - pool - 2w - 2w - pool - D - global average - dropout`` with width w: an epoch of the 8x8 digits of
    scikit-learn takes a fraction of a second on a CPU, and 28x28 or 32x32 images work unchanged. It follows no paper.

    With the default arguments 139,168 parameters; in general
    ``9 * (C * w + 7 * w**2 + 2 * w * D) + 2 * (6 * w + D)``.

    Shape:
        Images (B, C, H, W) with H and W at least 4 (8 for training batches of one sample) to features (B, D).

    Args:
        in_channels: Channels C of the images.
        width: Channels w of the first two convolutions; the next two have twice as many.
        num_features: Size D of the features.
        dropout: Probability of dropping a feature in training.

    Attributes:
        num_features: Size D of the features.

    Raises:
        NoisyLabelError: A size is not positive or ``dropout`` is outside [0, 1).
    """

    def __init__(self, in_channels: int = 1, width: int = 32, num_features: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        check_count(in_channels, "in_channels")
        check_count(width, "width")
        check_count(num_features, "num_features")
        check_argument(0 <= dropout < 1, "dropout", "a float in [0, 1)", dropout)
        self.num_features = num_features
        self.layers = nn.Sequential(
            _convolution(in_channels, width),
            _convolution(width, width),
            nn.MaxPool2d(2),
            _convolution(width, 2 * width),
            _convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            _convolution(2 * width, num_features),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, D)."""
        features: Tensor = self.layers(images)
        return features
