"""How wide the features of a backbone are."""

from __future__ import annotations

from torch import nn

from lightning_noisy.errors import NoisyLabelError


def feature_width(backbone: nn.Module) -> int:
    """Width D of the features (B, D) that a backbone returns, its ``num_features``.

    Raises:
        NoisyLabelError: It has none.
    """
    width = getattr(backbone, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise NoisyLabelError(
            f"{type(backbone).__name__} has no `num_features`: set it to the width D of the features (B, D) that it "
            "returns, or use `lightning_noisy.networks.TorchvisionBackbone`."
        )
    return width
