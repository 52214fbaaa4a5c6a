"""Any classification network of timm as a backbone."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError, check_argument


def _import_timm() -> ModuleType:
    try:
        return import_module("timm")
    except ImportError as error:
        raise NoisyLabelError(
            f"TimmBackbone needs timm, which cannot be imported ({error}): pip install lightning-noisy[timm]"
        ) from error


def _build(name: str, pretrained: bool, model_arguments: dict[str, Any]) -> nn.Module:
    """The model of timm, without its classifier."""
    timm = _import_timm()
    check_argument(timm.is_model(name), "name", "a model of timm (timm.list_models())", name)
    without = "without 'num_classes', which belongs to the head"
    check_argument("num_classes" not in model_arguments, "model_arguments", without, model_arguments)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **model_arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise NoisyLabelError(
            f"timm cannot make {name!r} with pretrained={pretrained} and `model_arguments` {model_arguments!r}: "
            + " ".join(str(error).split())
        ) from error
    return model


class TimmBackbone(nn.Module):
    """A classification network of timm without its classifier.

    What timm builds with ``num_classes=0``: the features followed by the classifier are the original network's logits.
    Parameters and state-dict keys are those of timm's network under ``model.``, without the classifier. Batch
    normalization of a feature map that has shrunk to one pixel needs more than one sample in a training batch.

    timm is optional: ``pip install lightning-noisy[timm]``.

    ``TimmBackbone("inception_resnet_v2")`` is the InceptionResNetV2 of WebVision (DivideMix, ELR+, UNICON, DISC, NAL):
    Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (AAAI 2017),
    54,306,464 parameters, 54,383,314 with ``nn.Linear(1536, 50)`` on top, from scratch. It averages the last feature
    map whatever its size, as the code of ELR+, DISC and NAL does (images of 227, 224 and 227 pixels); DivideMix and
    UNICON average 8 x 8 pixels, so that they need images of 299 pixels and are the same there. DISC's code replaces a
    layer ``fc`` that this network does not have; its classifier is the one removed here.

    Shape:
        Images (B, 3, H, W), of the sizes the network takes, to features (B, D).

    Args:
        name: A model of timm, e.g. ``"inception_resnet_v2"``, if wanted with the tag of its weights,
            e.g. ``"resnet50.a1_in1k"``; all names are in ``timm.list_models()``.
        pretrained: Whether to start from timm's weights, downloaded on first use, and not at random.
        model_arguments: Further keyword arguments of timm's model, e.g. ``{"drop_rate": 0.2}``.

    Attributes:
        num_features: Size D of the features, the input size of the classifier removed.
        model: timm's network without a classifier.

    Raises:
        NoisyLabelError: timm cannot be imported, the model or its weights are unknown, ``model_arguments`` do not fit,
            or the model does not say how wide its features are.

    Example::

        TimmBackbone("inception_resnet_v2").num_features  # 1536
    """

    def __init__(self, name: str, pretrained: bool = False, model_arguments: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.model = _build(name, pretrained, model_arguments or {})
        width = getattr(self.model, "head_hidden_size", None)
        if not isinstance(width, int):
            raise NoisyLabelError(
                f"timm's {name} with `model_arguments` {model_arguments!r} has no `head_hidden_size`, the width of its "
                "features: choose another model, or one that ends in a classifier."
            )
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, D)."""
        features: Tensor = self.model(images)
        return features
