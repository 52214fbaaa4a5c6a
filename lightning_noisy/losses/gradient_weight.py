"""How much weight a loss gives to a sample, against the probability of its label."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.losses.base import NoisyLabelLoss


def gradient_weight(loss: nn.Module, confidence: Tensor, num_classes: int = 10, **context: Any) -> Tensor:
    r"""The weight that a loss gives to the gradient of a label's probability.

    .. math:: w(p_y) = -\frac{\partial \ell}{\partial z_y} \Big/ \frac{\partial p_y}{\partial z_y}, \qquad
              \frac{\partial p_y}{\partial z_y} = p_y (1 - p_y)

    of samples whose other outputs share the rest evenly, :math:`p_k = (1 - p_y) / (K - 1)`, with logits
    :math:`z_k = \ln p_k`. Of a loss of :math:`p_y` alone it is :math:`-\ell'(p_y)`, so that its gradient is
    :math:`-w(p_y) \nabla p_y`: cross entropy has :math:`1 / p_y`, generalized cross entropy :math:`p_y^{q - 1}`, mean
    absolute error a constant. A loss that rises with :math:`p_y` learns what is learned already, one that falls learns
    what is hard.

    A batch for each probability has one sample of each class. A copy of the loss, in training mode and float64,
    computes it: rows of memory are those of a first visit, random streams stay as they are. What a loss requires and
    ``context`` does not give is: the first K samples, features of zero, a parameter of zero, the same logits as two
    views, epoch 0 of 100.

    Args:
        loss: A loss of this package, or a torch criterion of logits and labels.
        confidence: Probabilities :math:`p_y` in (0, 1), shape (M,).
        num_classes: K, at least 2; outputs that the loss asks for beside come on top.
        **context: Keywords of the loss: ``epoch``, ``features`` and the like.

    Returns:
        float64 tensor (M,).

    Raises:
        NoisyLabelError: A probability outside (0, 1), or K < 2.

    Reference: Dynamics-Aware Loss for Learning with Label Noise, figure 2.

    Example:
        >>> import torch
        >>> from lightning_noisy.losses import GeneralizedCrossEntropy
        >>> gradient_weight(GeneralizedCrossEntropy(q=0.5), torch.tensor([0.25, 1 / 9]))
        tensor([2.0000, 3.0000], dtype=torch.float64)
    """
    check_count(num_classes, "num_classes", least=2)
    inside = bool(((confidence > 0) & (confidence < 1)).all())
    check_argument(inside and confidence.ndim == 1, "confidence", "probabilities (M,) in (0, 1)", confidence)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        copied, offered = _prepared(loss, num_classes)
        weights = [_weight(copied, float(p), num_classes, {**offered, **context}) for p in confidence.double()]
    return torch.tensor(weights, dtype=torch.float64)


def _weight(loss: Any, p: float, num_classes: int, context: dict[str, Any]) -> float:
    """The weight of one probability, as the mean over a sample of each class."""
    outputs, labels = num_classes + getattr(loss, "extra_outputs", 0), torch.arange(num_classes)
    probabilities = torch.full((num_classes, outputs), (1 - p) / (outputs - 1), dtype=torch.float64)
    logits = probabilities.scatter(1, labels.unsqueeze(1), p).log().requires_grad_()
    if "views" in context:
        context["views"] = (logits, logits)
    if isinstance(loss, NoisyLabelLoss):
        loss.stores = {name: _FirstVisit(num_classes, shape) for name, shape in loss.store_shapes(num_classes).items()}
    (gradient,) = torch.autograd.grad(loss(logits, labels, **context), logits)
    return -float(gradient.gather(1, labels.unsqueeze(1)).sum()) / (p * (1 - p))


def _prepared(loss: nn.Module, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """A copy that may be called, and what it requires."""
    copied: Any = copy.deepcopy(loss).train()
    copied.reduction = "mean"
    widths = [part.in_features for part in copied.modules() if isinstance(part, nn.Linear)]
    width = widths[0] if widths else 1
    if isinstance(copied, NoisyLabelLoss):
        copied.bind(width, num_classes)
    offered = {
        "index": torch.arange(num_classes),
        "features": torch.zeros(num_classes, width, dtype=torch.float64),
        "parameters": (torch.zeros(1),),
        "views": None,
        "epoch": 0,
        "total_epochs": 100,
    }
    return copied.double(), {name: offered[name] for name in getattr(copied, "requires", ())}


class _FirstVisit:
    """Rows that nobody has written yet."""

    def __init__(self, rows: int, shape: tuple[int, ...]) -> None:
        self._values = torch.zeros(rows, *shape, dtype=torch.float64)

    def get(self, index: Tensor) -> Tensor:
        return self._values[index]

    def update(self, index: Tensor, values: Tensor) -> Tensor:
        self._values[index] = values.detach().to(self._values)
        return self._values[index]

    def lerp(self, index: Tensor, values: Tensor, weight: float) -> Tensor:
        return self.update(index, self.get(index).lerp(values.detach().to(self._values), weight))
