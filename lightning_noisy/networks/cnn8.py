"""The 8-layer CNN of the active-passive losses and the active-negative losses on CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.networks.batch_norm import LoneSampleBatchNorm1d
from lightning_noisy.networks.convolutions import convolutions

_IMAGE_SIZE = 32
_WIDTHS = (64, 128, 196)
_POOLED_SIZE = _IMAGE_SIZE // 2 ** len(_WIDTHS)


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with bias, each with batch normalization and ReLU, then 2x2 max-pooling."""
    return nn.Sequential(*convolutions((in_channels, out_channels, out_channels)), nn.MaxPool2d(2))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)


class CNN8(nn.Module):
    """8-layer CNN for CIFAR-10, the eighth layer being the head's linear one.

    Six 3x3 convolutions with bias, 64-64-pool-128-128-pool-196-196-pool, each followed by batch normalization and
    ReLU; then flatten (3136), linear to 256, batch normalization, ReLU. Convolutions start Kaiming uniform (fan in),
    the linear layer Xavier uniform; biases start as torch's. A training batch of one sample works, see
    :class:`~lightning_noisy.networks.LoneSampleBatchNorm1d`.

    1,637,224 parameters with three input channels; 1,639,794 with ``nn.Linear(256, 10)`` on top, the network of
    Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels" (ICML 2020) and of Ye et al., "Active
    Negative Loss Functions for Learning with Noisy Labels" (NeurIPS 2023). They start the last linear layer Xavier
    uniform too, which is the head's business here.

    Shape:
        Images (B, C, 32, 32) to features (B, 256).

    Args:
        in_channels: Channels C of the images.

    Attributes:
        num_features: Size of the features, 256.

    Raises:
        NoisyLabelError: ``in_channels`` is not positive, or images are not 32 x 32.
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        check_count(in_channels, "in_channels")
        self.num_features = 256
        channels = (in_channels, *_WIDTHS)
        self.convolutions = nn.Sequential(*map(_stage, channels[:-1], channels[1:]))
        self.projection = nn.Sequential(
            nn.Flatten(),
            nn.Linear(_WIDTHS[-1] * _POOLED_SIZE**2, self.num_features),
            LoneSampleBatchNorm1d(self.num_features),
            nn.ReLU(inplace=True),
        )
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, 32, 32) to features (B, 256)."""
        size = tuple(images.shape[-2:])
        check_argument(size == (_IMAGE_SIZE, _IMAGE_SIZE), "images", "32 x 32 pixels: resize or use SmallCNN", size)
        features: Tensor = self.projection(self.convolutions(images))
        return features
