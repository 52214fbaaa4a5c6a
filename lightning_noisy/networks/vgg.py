"""The VGG-19 of ANIMAL-10N."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.networks.torchvision_backbone import TorchvisionBackbone

_SMALLEST_IMAGE = 32


class VGG19BN(TorchvisionBackbone):
    """VGG-19 with batch normalization, from scratch: the network of ANIMAL-10N.

    torchvision's ``vgg19_bn`` without its last layer: 16 3x3 convolutions with bias, each followed by batch
    normalization and ReLU, 64-64-pool-128-128-pool-256x4-pool-512x4-pool-512x4-pool; average pooling to 7 x 7, which
    stretches the 2 x 2 that images of 64 x 64 pixels leave; linear to 4096, ReLU, dropout, twice. Convolutions start
    Kaiming normal (fan out), linear layers normal with deviation 0.01, biases at zero.

    139,581,248 parameters; 139,622,218 with ``nn.Linear(4096, 10)`` on top. Simonyan and Zisserman, "Very Deep
    Convolutional Networks for Large-Scale Image Recognition" (ICLR 2015). DISC, PLC, SELC and NAL drop 0.5, SURE 0.2,
    nested dropout 0. The code of SELC and NAL also carries a second classifier of one output.

    Shape:
        Images (B, 3, H, W) with H and W at least 32 to features (B, 4096).

    Args:
        dropout: Probability of dropping a unit of either hidden layer in training.

    Attributes:
        num_features: Size of the features, 4096.
        model: torchvision's network with the identity as its last layer.

    Raises:
        NoisyLabelError: ``dropout`` is outside [0, 1), or images are too small.
    """

    def __init__(self, dropout: float = 0.5) -> None:
        check_argument(0 <= dropout < 1, "dropout", "a float in [0, 1)", dropout)
        super().__init__("vgg19_bn", model_arguments={"dropout": dropout})

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 4096)."""
        size = tuple(images.shape[-2:])
        check_argument(min(size) >= _SMALLEST_IMAGE, "images", "at least 32 x 32 pixels: resize", size)
        return super().forward(images)
