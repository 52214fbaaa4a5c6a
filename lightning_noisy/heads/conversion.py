"""Which layers of other libraries can be masked, and as what."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_noisy.heads.convolution import ConvolutionHead, is_pointwise
from lightning_noisy.heads.kan import KANHead
from lightning_noisy.heads.linear import LinearHead
from lightning_noisy.heads.maskable import MaskableHead

_KAN_PARTS = ("base_weight", "spline_weight", "spline_scaler", "grid")


def maskable_class(layer: nn.Module) -> type[MaskableHead] | None:
    """The class that a layer has to take so that it can be masked: its own if it is a head of this package.

    The class alone changes (``layer.__class__``): the object, its parameters and its place in the model stay. A plain
    ``nn.Linear`` becomes a :class:`LinearHead`, a plain ``nn.Conv2d`` of kernel size 1, stride 1 and one group a
    :class:`~lightning_noisy.heads.convolution.ConvolutionHead`. A layer with the parts of efficient-kan's ``KANLinear``
    (base_weight, spline_weight, spline_scaler, grid, base_activation, spline_order) becomes a :class:`KANHead`,
    wherever it comes from; with another parameter, buffer or submodule, such as a normalization, it computes something
    else.

    Returns:
        The class, or None if the layer cannot be masked.
    """
    if isinstance(layer, MaskableHead):
        return type(layer)
    if type(layer) is nn.Linear:
        return LinearHead
    if is_pointwise(layer):
        return ConvolutionHead
    return KANHead if _is_efficient_kan(layer) else None


def _is_efficient_kan(layer: nn.Module) -> bool:
    parts = [part for name in _KAN_PARTS if isinstance(part := getattr(layer, name, None), Tensor)]
    order = getattr(layer, "spline_order", None)
    own = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False), *layer.named_children())
    if any(name not in (*_KAN_PARTS, "base_activation") for name, _ in own):
        return False
    if len(parts) != len(_KAN_PARTS) or not isinstance(order, int) or not hasattr(layer, "base_activation"):
        return False
    base, splines, scaler, grid = (tuple(part.shape) for part in parts)
    return len(splines) == 3 and base == scaler == splines[:2] and grid == (base[1], splines[2] + order + 1)
