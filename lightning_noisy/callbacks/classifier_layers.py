"""Which layers of a module are its classifiers, and which can be masked."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_noisy.checks import check_not_compiled
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads.conversion import maskable_class
from lightning_noisy.heads.maskable import MaskableHead
from lightning_noisy.networks.classifier import Classifier


def default_heads(pl_module: LightningModule, asking: str) -> tuple[str, ...]:
    """Dotted names of the classifiers of a module whose user named none.

    Args:
        pl_module: The module.
        asking: Who needs them, for the message.

    Returns:
        The head of each :class:`~lightning_noisy.networks.Classifier` that is trained, else ``head``.

    Raises:
        NoisyLabelError: There is none.
    """
    modules = dict(pl_module.named_modules())
    names = tuple(f"{name}.head" for name, module in modules.items() if _is_trained_classifier(module))
    if not names and "head" not in modules:
        raise NoisyLabelError(
            f"{asking} does not know which layer of {type(pl_module).__name__} is the classifier: name it with `head`, "
            f"one of {maskable_layers(pl_module)}."
        )
    return names or ("head",)


def _is_trained_classifier(module: nn.Module) -> bool:
    """A teacher, which no gradient reaches, is none."""
    return isinstance(module, Classifier) and any(p.requires_grad for p in module.head.parameters())


def last_backbone_layers(pl_module: LightningModule, asking: str) -> tuple[str, ...]:
    """Dotted names of the last layers of a module's backbones whose user named none.

    Args:
        pl_module: The module.
        asking: Who needs them, for the message.

    Returns:
        Of each :class:`~lightning_noisy.networks.Classifier` the last layer of its backbone with weights of two or more
        dimensions.

    Raises:
        NoisyLabelError: There is none.
    """
    names: list[str] = []
    for name, classifier in pl_module.named_modules():
        if isinstance(classifier, Classifier):
            weighted = [path for path, layer in classifier.backbone.named_modules() if _has_weights(layer)]
            names += [f"{name}.backbone.{weighted[-1]}".rstrip(".")] if weighted else []
    if not names:
        layers = [name for name, layer in pl_module.named_modules() if _has_weights(layer)]
        raise NoisyLabelError(
            f"{asking} does not know which layer of {type(pl_module).__name__} is the last of its backbone: name it "
            f"with `layer`, one of {', '.join(layers[-8:]) or 'none'}."
        )
    return tuple(names)


def _has_weights(layer: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False))


def find_head(pl_module: LightningModule, name: str) -> tuple[Any, type[MaskableHead]]:
    """A layer to mask, and the class that it takes for that.

    Raises:
        NoisyLabelError: There is no such layer, it or what it lies in is compiled, or it cannot be masked.
    """
    layer = dict(pl_module.named_modules(remove_duplicate=False)).get(name)
    if layer is None:
        raise NoisyLabelError(
            f"{type(pl_module).__name__} has no layer `{name}` to mask: the layers that can be masked are "
            f"{maskable_layers(pl_module)}."
        )
    check_not_compiled(pl_module, layer, name)
    maskable = maskable_class(layer)
    if maskable is None:
        origin = type(layer).__module__.split(".")[0]  # others have a class `Linear` too
        raise NoisyLabelError(
            f"MaskRefresh cannot mask `{name}`, a {type(layer).__name__} of {origin}: wanted an nn.Linear, an "
            "ungrouped 1x1 nn.Conv2d, a layer of efficient-kan with its spline_scaler and nothing added, or a head of "
            f"lightning_noisy.heads; here these are {maskable_layers(pl_module)}."
        )
    return layer, maskable


def warn_of_tied_weights(pl_module: LightningModule, layer: nn.Module, name: str) -> None:
    """Say that a weight which another layer uses too has a gradient from there, whatever the mask."""
    own = {id(parameter) for parameter in layer.parameters()}
    inside = set(layer.modules())
    for path, module in pl_module.named_modules():
        if module not in inside and any(id(parameter) in own for parameter in module.parameters(recurse=False)):
            rank_zero_warn(
                f"The weight of `{name}` is also that of `{path}`: masked edges keep the gradient that comes from "
                "there; untie them if they are not to learn at all."
            )


def maskable_layers(pl_module: LightningModule) -> str:
    """The last layers that can be masked, for messages."""
    names = [name for name, module in pl_module.named_modules() if maskable_class(module)]
    return ", ".join(names[-8:]) or "none"
