"""Any classification network of torchvision as a backbone."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from lightning_noisy.errors import NoisyLabelError, check_argument

_NUM_CLASSES = 1000  # what every classification network of torchvision is built with
_WITHOUT_AUXILIARY_HEADS = {"aux_logits": False, "aux1": None, "aux2": None, "AuxLogits": None}


def check_model_name(name: str, weights: str | None) -> None:
    """Refuse an unknown model, and weights the model does not have.

    Args:
        name: A classification model of torchvision.
        weights: Its pretrained weights by name, or None.

    Raises:
        NoisyLabelError: There is no such model, or it has no such weights.
    """
    listing = "a classification model of torchvision (torchvision.models.list_models(module=torchvision.models))"
    check_argument(name in list_models(module=torchvision.models), "name", listing, name)
    if weights is not None:
        known = get_model_weights(name)
        wanted = f"None or one of {', '.join(known.__members__)} for {name}"
        check_argument(weights.removeprefix(f"{known.__name__}.") in known.__members__, "weights", wanted, weights)


def _build(name: str, weights: str | None, model_arguments: dict[str, Any]) -> nn.Module:
    """The model of torchvision, without its auxiliary heads."""
    if "num_classes" in model_arguments:
        raise NoisyLabelError(
            "Expected argument `model_arguments` to be without 'num_classes', which belongs to the head, "
            f"but got {model_arguments!r}."
        )
    if name in ("googlenet", "inception_v3"):  # say what torchvision would otherwise warn about
        model_arguments = {"init_weights": weights is None, **model_arguments}
    try:
        model: nn.Module = get_model(name, weights=weights, **model_arguments)
    except (TypeError, ValueError) as error:
        raise NoisyLabelError(
            f"Expected argument `model_arguments` to be keyword arguments of torchvision's {name}, "
            f"but got {model_arguments!r}: {error}"
        ) from error
    for attribute, value in _WITHOUT_AUXILIARY_HEADS.items():
        if hasattr(model, attribute):
            setattr(model, attribute, value)
    return model


def _remove_classifier(name: str, model: nn.Module) -> int:
    """Replace the classifier of ``model`` by the identity; returns the classifier's input size."""
    classifiers = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == _NUM_CLASSES
    ]
    if not classifiers:
        raise NoisyLabelError(
            f"Expected argument `name` to be a torchvision model that ends in a linear classifier, but got {name!r}, "
            "which has none; choose another model."
        )
    path, classifier = classifiers[-1]
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return classifier.in_features


class TorchvisionBackbone(nn.Module):
    """A torchvision classification network without its classifier.

    The classifier is the last linear layer, in module order, with as many outputs as the network has classes (``fc``,
    ``classifier[-1]``, ``head``, ``heads.head``, ...). It is replaced by the identity; all before it stays, dropout in
    front of it included. The features followed by that linear layer are the original network's logits. Auxiliary
    heads (GoogLeNet, Inception v3) are removed, so the output is one tensor in training too. SqueezeNet, which ends
    in a convolution, is refused.

    ``TorchvisionBackbone("resnet50", weights="IMAGENET1K_V1")`` is the ResNet-50 of Clothing1M in DivideMix, ELR+ and
    DISC, images of 224 pixels: 23,508,032 parameters, 23,536,718 with ``nn.Linear(2048, 14)`` on top.

    Parameters and state-dict keys are those of torchvision's network under ``model.``, without the classifier. Batch
    normalization of a feature map that has shrunk to one pixel needs more than one sample in a training batch.

    Shape:
        Images (B, 3, H, W), of the sizes the network takes, to features (B, D).

    Args:
        name: A classification model of torchvision, e.g. ``"resnet50"``; all names are in
            ``torchvision.models.list_models(module=torchvision.models)``.
        weights: Pretrained weights by name, e.g. ``"DEFAULT"`` or ``"IMAGENET1K_V1"``, downloaded by torchvision on
            first use; ``None`` starts at random.
        model_arguments: Further keyword arguments of torchvision's model, e.g. ``{"dropout": 0.2}`` for
            ``"vgg19_bn"``.

    Attributes:
        num_features: Size D of the features, the input size of the classifier removed.
        model: torchvision's network with the identity as classifier.

    Raises:
        NoisyLabelError: The model or its weights are unknown, ``model_arguments`` do not fit, or the model does not
            end in a linear layer.

    Example:
        >>> TorchvisionBackbone("resnet18").num_features
        512
    """

    def __init__(self, name: str, weights: str | None = None, model_arguments: dict[str, Any] | None = None) -> None:
        super().__init__()
        check_model_name(name, weights)
        self.model = _build(name, weights, model_arguments or {})
        self.num_features = _remove_classifier(name, self.model)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, D)."""
        features: Tensor = self.model(images)
        return features
