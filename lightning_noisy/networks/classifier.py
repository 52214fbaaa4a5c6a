"""A network that classifies: backbone and head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError, check_kind
from lightning_noisy.networks.feature_width import feature_width


@dataclass(frozen=True)
class Outputs:
    """What a network says of a batch."""

    logits: Tensor
    """Logits of the first view, (B, K)."""

    features: Tensor
    """Features that they were made of, (B, D)."""

    views: tuple[Tensor, ...]
    """Logits of all views, each (B, K)."""

    network: nn.Module
    """The network that says it."""

    all_features: Tensor
    """Features of all views, one view after the other."""

    def of_view(self, view: int) -> Outputs:
        """What it says of one of the views."""
        rows = len(self.logits)
        features = self.all_features[view * rows : (view + 1) * rows]
        return Outputs(self.views[view], features, (self.views[view],), self.network, features)


class Classifier(nn.Module):
    """Backbone and head: images to features (B, D) to logits (B, K).

    Args:
        backbone: Maps images (B, C, H, W) to features (B, D), with an int attribute ``num_features`` = D.
        head: Makes the classifier from (D, K), e.g. ``LinearHead``.
        num_outputs: K.

    Raises:
        NoisyLabelError: A backbone without ``num_features``, or that is no module; a head that is made already.
    """

    def __init__(self, backbone: nn.Module, head: Callable[[int, int], nn.Module], num_outputs: int) -> None:
        super().__init__()
        check_kind(isinstance(backbone, nn.Module), "backbone", "a module", backbone)
        check_factory(head, "head", "the classifier of (D, K)")
        self.backbone = backbone
        self.head = head(self.num_features, num_outputs)

    @property
    def num_features(self) -> int:
        """Width D of the features."""
        return feature_width(self.backbone)

    def features(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to features (B, D).

        Raises:
            NoisyLabelError: The backbone's output is not (B, ``num_features``).
        """
        features = cast(Tensor, self.backbone(images))
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise NoisyLabelError(
                f"{type(self.backbone).__name__}.num_features is {self.num_features}, but its output has shape "
                f"{tuple(features.shape)}: wanted (B, {self.num_features}); set `num_features` to the real width, or "
                "flatten."
            )
        return features

    def forward(self, images: Any) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        return cast(Tensor, self.head(self.features(images)))

    def outputs(self, images: Any) -> Outputs:
        """Logits and features of a batch.

        Args:
            images: (B, C, H, W), or a list of views, each such a tensor: all pass through the network together, so that
                batch normalization sees them as one batch.
        """
        several = isinstance(images, (tuple, list))
        features = self.features(torch.cat(list(images)) if several else images)
        rows = len(features) // (len(images) if several else 1)
        views = self.head(features).split(rows)
        return Outputs(views[0], features[:rows], views, self, features)


def check_factory(value: object, name: str, makes: str) -> None:
    """Refuse what is made already where something is to be made.

    Args:
        value: What came.
        name: The argument's name.
        makes: What it has to make.

    Raises:
        NoisyLabelError: It is a module, or nothing that can be called.
    """
    factory = callable(value) and not isinstance(value, nn.Module)
    check_kind(factory, name, f"a class or function that makes {makes}", value)
