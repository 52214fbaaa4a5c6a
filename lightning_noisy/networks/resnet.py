"""ResNets for small images (CIFAR): a 3x3 stem of stride 1, without max-pooling unless asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import BasicBlock, ResNet

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.networks.torchvision_backbone import check_model_name


class CIFARResNet(ResNet):  # type: ignore[misc]  # torchvision carries no types
    """ResNet of post-activation basic blocks for images of about 32 x 32 pixels.

    torchvision's ResNet with its 7x7 stem of stride 2 replaced by a 3x3 convolution of stride 1, and its max-pooling
    (but with ``max_pool``) and classifier by the identity: stem 64, four stages of widths 64-128-256-512 and strides
    1-2-2-2, global average pooling. Convolutions start Kaiming normal (fan out), batch normalization at one and zero.
    The state-dict keys are torchvision's without ``fc``; all tensors but ``conv1.weight`` have the shapes of
    torchvision's network.

    He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), in the variant for CIFAR common in the
    literature on noisy labels (not the paper's own three-stage one).

    Shape:
        Images (B, C, H, W) to features (B, 512). A training batch of one sample needs images larger than 8 x 8.

    Args:
        blocks: Number of basic blocks in each of the four stages.
        in_channels: Channels C of the images.
        max_pool: Keep the 3x3 max-pooling of stride 2 after the stem, for images of about 64 x 64 (ANIMAL-10N).

    Attributes:
        num_features: Size of the features, 512.

    Raises:
        NoisyLabelError: ``blocks`` is not four positive ints or ``in_channels`` is not positive.
    """

    def __init__(self, blocks: Sequence[int], in_channels: int = 3, max_pool: bool = False) -> None:
        check_argument(len(blocks) == 4 and min(blocks) > 0, "blocks", "four positive ints", blocks)
        check_count(in_channels, "in_channels")
        super().__init__(BasicBlock, list(blocks))
        self.num_features = 512
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if not max_pool:
            self.maxpool = nn.Identity()
        self.fc = nn.Identity()

    def load_pretrained(self, name: str, weights: str) -> None:
        """Take the weights of torchvision's network for all but the stem (``conv1``, ``bn1``), which stays as it is.

        Args:
            name: Network of torchvision with the same blocks, e.g. ``"resnet18"``.
            weights: Its pretrained weights by name, e.g. ``"IMAGENET1K_V1"``, downloaded on first use.

        Raises:
            NoisyLabelError: There are no such weights.
        """
        check_model_name(name, weights)
        trained = get_model(name, weights=weights).state_dict()
        stem_and_classifier = ("conv1.", "bn1.", "fc.")
        own = {key: value for key, value in trained.items() if not key.startswith(stem_and_classifier)}
        self.load_state_dict({**self.state_dict(), **own})


class ResNet18(CIFARResNet):
    """ResNet-18 for CIFAR: :class:`CIFARResNet` with two basic blocks in each stage.

    11,168,832 parameters with three input channels; 11,173,962 with ``nn.Linear(512, 10)`` on top.

    Shape:
        Images (B, C, H, W) to features (B, 512).

    Args:
        in_channels: Channels C of the images.
        max_pool: Keep the 3x3 max-pooling of stride 2 after the stem.
        weights: Pretrained weights of torchvision's network by name, e.g. ``"IMAGENET1K_V1"``, for all but the stem;
            None starts at random.

    Attributes:
        num_features: Size of the features, 512.

    Raises:
        NoisyLabelError: There are no such weights.
    """

    def __init__(self, in_channels: int = 3, max_pool: bool = False, weights: str | None = None) -> None:
        super().__init__((2, 2, 2, 2), in_channels, max_pool)
        if weights is not None:
            self.load_pretrained("resnet18", weights)


class ResNet34(CIFARResNet):
    """ResNet-34 for CIFAR: :class:`CIFARResNet` with 3, 4, 6 and 3 basic blocks in its stages.

    21,276,992 parameters with three input channels; 21,282,122 with ``nn.Linear(512, 10)`` on top. The
    "PreActResNet-34" of PLC (Zhang et al., ICLR 2021) is this network: its blocks are post-activation ones.

    Shape:
        Images (B, C, H, W) to features (B, 512).

    Args:
        in_channels: Channels C of the images.
        max_pool: Keep the 3x3 max-pooling of stride 2 after the stem.
        weights: Pretrained weights of torchvision's network by name, e.g. ``"IMAGENET1K_V1"``, for all but the stem;
            None starts at random.

    Attributes:
        num_features: Size of the features, 512.

    Raises:
        NoisyLabelError: There are no such weights.
    """

    def __init__(self, in_channels: int = 3, max_pool: bool = False, weights: str | None = None) -> None:
        super().__init__((3, 4, 6, 3), in_channels, max_pool)
        if weights is not None:
            self.load_pretrained("resnet34", weights)
