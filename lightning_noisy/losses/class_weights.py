"""Class weights of torch's cross entropy where targets are soft: those of the given labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError

_WEIGHTS = "_weights_of_samples"
"""Attribute of a criterion while its targets are soft."""


@dataclass(frozen=True, eq=False)
class SoftTarget:
    """A soft target, and whose weight counts."""

    final: Tensor
    """What the criterion gets, (B, K)."""

    rows: Tensor
    """The target before samples were mixed, (B, K)."""

    labels: Tensor
    """Whose weight is that of the sample, int64 (B,)."""

    mix: Callable[[Tensor], Tensor]
    """Mixes values of samples (B, ...) as the target was mixed."""

    def weights(self, class_weights: Tensor) -> Tensor:
        """The weight of each sample, (B,)."""
        return self.mix(class_weights[self.labels])

    def cross_entropy(self, logits: Tensor, class_weights: Tensor, label_smoothing: float, reduction: str) -> Tensor:
        r"""Cross entropy of which each sample has the weight of its label.

        .. math::
            \frac{\sum_i \ell_i}{\sum_i w_{y_i}}, \qquad \ell_i = -\sum_k
            \Big((1 - \epsilon)\, w_{y_i} t_{ik} + \frac{\epsilon}{K} w_k\Big) \log p_{ik}

        For one-hot rows it is what torch computes for labels. Mixed samples have the mean of both losses and weights.

        Args:
            logits: (B, K).
            class_weights: w, (K,).
            label_smoothing: :math:`\epsilon`.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.

        Returns:
            Scalar, or (B,) without reduction.
        """
        weighed = self.mix(class_weights[self.labels].unsqueeze(1) * self.rows)
        rows = (1 - label_smoothing) * weighed + label_smoothing / logits.shape[1] * class_weights
        losses = -(rows * logits.log_softmax(dim=1)).sum(dim=1)
        if reduction == "none":
            return losses
        return losses.sum() / (1 if reduction == "sum" else self.weights(class_weights).sum())


def weighs_classes(criterion: object) -> bool:
    """Whether the mean is that of torch's cross entropy: over the sum of the labels' weights."""
    return getattr(type(criterion), "forward", None) in (nn.CrossEntropyLoss.forward, nn.NLLLoss.forward)


def weighs_in_its_own_way(criterion: nn.Module) -> bool:
    """Whether class weights are held by what is no criterion of torch as it stands: a subclass, a function's module."""
    own = {**vars(criterion), **dict(criterion.named_buffers(recurse=False))}
    own |= dict(criterion.named_parameters(recurse=False))
    named = any("weight" in name and isinstance(value, Tensor) and value.ndim == 1 for name, value in own.items())
    parts = [part for part in criterion.modules() if isinstance(part, nn.CrossEntropyLoss) and part.weight is not None]
    torch_itself = type(criterion).__module__ == nn.MSELoss.__module__
    return (named and not torch_itself and not weighs_classes(criterion)) or not all(map(weighs_classes, parts))


def soft_weights(criterion: nn.Module) -> Tensor | None:
    """The weights (B,) of the samples of now, where a criterion with class weights has a soft target of a batch."""
    weights: Tensor | None = vars(criterion).get(_WEIGHTS)
    return weights


class SoftClassWeights:
    """Lets every cross entropy with class weights in a criterion mean those of the given labels, batch by batch.

    Args:
        criterion: The criterion; it is not kept alive.
    """

    def __init__(self, criterion: nn.Module) -> None:
        self._criterion = ref(criterion)
        self._parts: list[tuple[nn.Module, Any]] = []

    def enter(self, soft: SoftTarget | None) -> None:
        """The criterion is about to be called, with a soft target or with labels, where torch's own meaning stands."""
        criterion = self._criterion()
        if soft is None or criterion is None:
            return
        for part in criterion.modules():
            if isinstance(part, nn.CrossEntropyLoss) and part.weight is not None:
                handle = part.register_forward_hook(partial(_weigh, soft), with_kwargs=True)
                vars(part)[_WEIGHTS] = soft.weights(part.weight)
                self._parts.append((part, handle))

    def leave(self) -> None:
        """The batch is over."""
        for part, handle in self._parts:
            handle.remove()
            vars(part).pop(_WEIGHTS, None)
        self._parts = []


def _weigh(
    soft: SoftTarget, criterion: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
) -> Tensor | None:
    assert isinstance(criterion, nn.CrossEntropyLoss)
    assert criterion.weight is not None
    logits, target = (*args, *(kwargs[name] for name in ("input", "target")[len(args) :]))
    if not target.is_floating_point():
        return None
    if target is not soft.final:
        raise NoisyLabelError(
            "Class weights have no meaning for soft targets that the criterion has changed on the way to "
            f"{type(criterion).__name__}: leave out its `weight`, or smooth by its `label_smoothing`."
        )
    return soft.cross_entropy(logits, criterion.weight, criterion.label_smoothing, criterion.reduction)
