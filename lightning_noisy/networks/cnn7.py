"""The 7-layer CNN of Co-teaching+, JoCoR, Jo-SRC and SED on CIFAR-100."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.networks.convolutions import convolutions
from lightning_noisy.networks.hidden_layer import hidden_layer

_IMAGE_SIZE = 32
_FLAT = 16 * (_IMAGE_SIZE // 2**3) ** 2


class CNN7(nn.Module):
    """7-layer CNN for CIFAR, the seventh layer being the head's linear one.

    Six 3x3 convolutions with bias, 64-64-pool-128-128-pool-196-16-pool, each followed by batch normalization and ReLU,
    pools being 2x2 maxima; then flatten (256). Convolutions start as torch's. The literature has two classifiers on
    top, and here the last linear layer of either is the module's head:

    - ``hidden=None``: the linear layer on the 256 values, as in JoCoR (Wei et al., CVPR 2020) and Co-teaching+
      (Yu et al., ICML 2019). 515,580 parameters with three input channels; 541,280 with ``nn.Linear(256, 100)`` on top.
    - ``hidden=512``: before it linear to 512, batch normalization, ReLU, as in Jo-SRC (Yao et al., CVPR 2021) and SED
      (Sheng et al., ECCV 2024). That layer starts Kaiming normal (fan in) with bias zero. 648,188 parameters; 699,488
      with ``nn.Linear(512, 100)`` on top. The official code starts the last layer that way too, which is the head's
      business here, and SED's carries an unused branch of 67,075 parameters more.

    A training batch of one sample works, see :class:`~lightning_noisy.networks.LoneSampleBatchNorm1d`.

    Shape:
        Images (B, C, 32, 32) to features (B, 256), or (B, ``hidden``).

    Args:
        in_channels: Channels C of the images.
        hidden: Width of the hidden layer after the convolutions; ``None`` for no such layer.

    Attributes:
        num_features: Size of the features, 256 or ``hidden``.

    Raises:
        NoisyLabelError: A size is not positive, or images are not 32 x 32.
    """

    def __init__(self, in_channels: int = 3, hidden: int | None = None) -> None:
        super().__init__()
        check_count(in_channels, "in_channels")
        check_count(hidden, "hidden", optional=True)
        self.num_features = hidden or _FLAT
        self.convolutions = nn.Sequential(
            *convolutions((in_channels, 64, 64)),
            nn.MaxPool2d(2),
            *convolutions((64, 128, 128)),
            nn.MaxPool2d(2),
            *convolutions((128, 196, 16)),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.projection = hidden_layer(_FLAT, hidden) if hidden else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, 32, 32) to features (B, 256) or (B, ``hidden``)."""
        size = tuple(images.shape[-2:])
        check_argument(size == (_IMAGE_SIZE, _IMAGE_SIZE), "images", "32 x 32 pixels: resize or use SmallCNN", size)
        features: Tensor = self.projection(self.convolutions(images))
        return features
