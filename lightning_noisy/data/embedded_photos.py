"""From an image file to the features that a head was trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_noisy.data.batch_transforms import BatchTransform
from lightning_noisy.networks.pretrained import pretrained_network


class EmbeddedPhoto:
    """Features of an image by a pretrained network, scaled as those of a training set.

    Args:
        network: Its name, see :func:`~lightning_noisy.networks.pretrained.pretrained_network`.
        weights: The file of its weights; None takes its own.
        scale: What becomes of a batch of features (B, D).

    Raises:
        NoisyLabelError: No such network, or no weights of it.
    """

    def __init__(self, network: str, weights: str | None, scale: BatchTransform) -> None:
        self.network = pretrained_network(network, weights)
        self.scale = scale

    @torch.inference_mode()
    def __call__(self, photo: Any) -> Tensor:
        """From a PIL image in RGB to features (D,)."""
        features: Tensor = self.network.network(self.network.transform(photo).unsqueeze(0)).float()
        scaled: Tensor = self.scale(features)
        return scaled[0].clone()
