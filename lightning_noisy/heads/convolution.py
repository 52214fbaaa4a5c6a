"""A classifier of every position of a feature map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.heads.maskable import MaskableHead


class ConvolutionHead(MaskableHead, nn.Conv2d):
    r"""What a 1x1 convolution becomes under masking: a linear classifier of each position of a feature map.

    .. math:: z_{ohw} = b_o + \sum_i M_{oi} W_{oi} x_{ihw}

    Scores take each position for a sample: ``obd`` the softmax there, also where the network averages afterwards.
    """

    @property
    def in_features(self) -> int:  # type: ignore[override]
        """Channels D that come in."""
        return self.in_channels

    @property
    def out_features(self) -> int:  # type: ignore[override]
        """Classes K."""
        return self.out_channels

    def basis(self, features: Tensor) -> Tensor:
        """The features themselves, (B H W, 1, D)."""
        return features.unsqueeze(1)

    def coefficients(self, mask: Tensor | None = None) -> Tensor:
        """The weight (K, 1, D)."""
        weight = self.weight.flatten(1)
        return (weight if mask is None else weight * mask).unsqueeze(1)

    def rows(self, logits: Tensor) -> Tensor:
        """Logits (B, K, H, W) as rows (B H W, K)."""
        return super().rows(logits.movedim(-3, -1))

    def forward(self, input: Tensor) -> Tensor:
        """Feature maps (B, D, H, W) to logits (B, K, H, W)."""
        if self.on_basis is not None:
            return super().forward(input.movedim(-3, -1)).movedim(-1, -3)
        weight = self.weight if self.edge_mask is None else self.weight * self.edge_mask[:, :, None, None]
        return F.conv2d(input, weight, self.bias)


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a plain convolution of each position by itself, with every channel in one group."""
    return (
        type(layer) is nn.Conv2d
        and (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.padding in ((0, 0), "valid", "same")
    )
