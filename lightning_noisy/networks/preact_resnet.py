"""Pre-activation ResNets for small images (CIFAR), and the wide ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.errors import check_argument, check_count


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _activation(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class _Block(nn.Module):
    """Twice batch normalization, ReLU and convolution, added to the shortcut.

    A shortcut that changes the shape is a 1x1 convolution of the activated input. Any other is the identity, of the
    input or (``activated``) of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activated: bool) -> None:
        super().__init__()
        reshapes = stride != 1 or in_channels != out_channels
        self.activated = activated or reshapes
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _convolution(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            if reshapes
            else nn.Identity()
        )

    def forward(self, maps: Tensor) -> Tensor:
        activated = F.relu(self.bn1(maps), inplace=True)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        shortcut: Tensor = self.shortcut(activated if self.activated else maps)
        return shortcut + residual


def _blocks(stem: int, blocks: Sequence[int], widths: Sequence[int], activated: bool) -> Iterator[_Block]:
    """All blocks; the first of each stage but the first stage halves the size."""
    for stage, ((before, after), count) in enumerate(zip(pairwise((stem, *widths)), blocks, strict=True)):
        yield _Block(before, after, 2 if stage else 1, activated)
        for _ in range(count - 1):
            yield _Block(after, after, 1, activated)


class PreActResNet(nn.Module):
    """ResNet of pre-activation basic blocks for images of about 32 x 32 pixels.

    A 3x3 convolution of stride 1 as stem, stages of strides 1-2-2-..., global average pooling. A block is batch
    normalization, ReLU, 3x3 convolution, twice, added to its shortcut. Where the shape changes, the shortcut is a 1x1
    convolution of the block's activated input, without batch normalization. Two networks go by this name:

    - ``variant="dividemix"``, the default because the published figures are of it: the "PreActResNet-18" of DivideMix
      (Li et al., ICLR 2020), ELR+ (Liu et al., NeurIPS 2020), UNICON (Karim et al., CVPR 2022) and M-DYR (Arazo et al.,
      ICML 2019), layer by layer as in their code. Batch normalization and ReLU follow the stem and do not follow the
      last block, and every shortcut takes the activated input, so that no path is the identity. Weights start as
      torch's.
    - ``variant="he"``: He et al., "Identity Mappings in Deep Residual Networks" (ECCV 2016), in the size for CIFAR
      above. The bare stem and the identity shortcuts make a clean path up to a last batch normalization and ReLU.
      Convolutions start Kaiming normal (fan out), as the authors'.

    Shape:
        Images (B, C, H, W) to features (B, D), with D the last width. With four stages, a training batch of one sample
        needs images larger than 8 x 8.

    Args:
        blocks: Number of blocks in each stage.
        widths: Channels of each stage.
        stem_width: Channels of the stem.
        in_channels: Channels C of the images.
        variant: ``"dividemix"`` or ``"he"``.

    Attributes:
        num_features: Size D of the features.

    Raises:
        NoisyLabelError: A number is not positive, ``blocks`` and ``widths`` differ in length, or the variant is
            unknown.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        in_channels: int = 3,
        variant: Literal["dividemix", "he"] = "dividemix",
    ) -> None:
        super().__init__()
        check_argument(len(widths) > 0 and min(widths) > 0, "widths", "positive ints, at least one", widths)
        each = f"{len(widths)} positive ints, one for each of `widths`"
        check_argument(len(blocks) == len(widths) and min(blocks) > 0, "blocks", each, blocks)
        check_count(stem_width, "stem_width")
        check_count(in_channels, "in_channels")
        check_argument(variant in ("dividemix", "he"), "variant", "'dividemix' or 'he'", variant)
        he = variant == "he"
        self.num_features = widths[-1]
        self.stem = nn.Sequential(
            _convolution(in_channels, stem_width), nn.Identity() if he else _activation(stem_width)
        )
        self.blocks = nn.Sequential(*_blocks(stem_width, blocks, widths, activated=not he))
        self.pool = nn.Sequential(
            _activation(self.num_features) if he else nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        if he:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, D)."""
        features: Tensor = self.pool(self.blocks(self.stem(images)))
        return features


class PreActResNet18(PreActResNet):
    """Pre-activation ResNet-18: :class:`PreActResNet` with two blocks in each stage.

    11,166,144 parameters with three input channels, 11,171,274 with ``nn.Linear(512, 10)`` on top; ``variant="he"``
    has 11,167,040 and 11,172,170.

    Shape:
        Images (B, C, H, W) to features (B, 512).

    Args:
        in_channels: Channels C of the images.
        variant: ``"dividemix"``, the network of DivideMix and its successors, or ``"he"``, the original.

    Attributes:
        num_features: Size of the features, 512.
    """

    def __init__(self, in_channels: int = 3, variant: Literal["dividemix", "he"] = "dividemix") -> None:
        super().__init__((2, 2, 2, 2), in_channels=in_channels, variant=variant)


class PreActResNet34(PreActResNet):
    """Pre-activation ResNet-34: :class:`PreActResNet` with 3, 4, 6 and 3 blocks in its stages.

    21,274,304 parameters with three input channels, 21,279,434 with ``nn.Linear(512, 10)`` on top; ``variant="he"``
    has 21,275,200 and 21,280,330. Papers that follow PLC (Zhang et al., ICLR 2021) write "PreActResNet-34" and run a
    post-activation network, :class:`~lightning_noisy.networks.ResNet34`.

    Shape:
        Images (B, C, H, W) to features (B, 512).

    Args:
        in_channels: Channels C of the images.
        variant: ``"dividemix"``, the blocks of DivideMix and its successors, or ``"he"``, the original.

    Attributes:
        num_features: Size of the features, 512.
    """

    def __init__(self, in_channels: int = 3, variant: Literal["dividemix", "he"] = "dividemix") -> None:
        super().__init__((3, 4, 6, 3), in_channels=in_channels, variant=variant)


class WideResNet(PreActResNet):
    """Wide ResNet for CIFAR: ``PreActResNet(variant="he")`` with a stem of 16 and three stages of 16k, 32k and 64k.

    Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016), without dropout. WRN-28-10, the default, has
    36,472,784 parameters with three input channels; 36,479,194 with ``nn.Linear(640, 10)`` on top. SELC (Lu and He,
    IJCAI 2022) trains it on CIFAR-10 with instance-dependent noise; its code gives convolutions a bias, puts the stride
    on a block's second one, and lets shortcuts that change the shape start from the plain input.

    Shape:
        Images (B, C, H, W) to features (B, 64k). A training batch of one sample needs images larger than 4 x 4.

    Args:
        depth: Number of layers, 6n + 4 with n blocks in each stage; the head's linear layer is one of them.
        width: Factor k.
        in_channels: Channels C of the images.

    Attributes:
        num_features: Size of the features, 64k.

    Raises:
        NoisyLabelError: ``depth`` is not 6n + 4 with n > 0, or another number is not positive.
    """

    def __init__(self, depth: int = 28, width: int = 10, in_channels: int = 3) -> None:
        check_argument(depth >= 10 and depth % 6 == 4, "depth", "one of 10, 16, 22, 28, ...", depth)
        check_count(width, "width")
        blocks = (depth - 4) // 6
        super().__init__((blocks,) * 3, (16 * width, 32 * width, 64 * width), 16, in_channels, variant="he")
