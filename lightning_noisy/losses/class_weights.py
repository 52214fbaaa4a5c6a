"""Class weights of torch's cross entropy where callbacks change targets: those of the given labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.losses import one_hot

_CHANGED = "_changed_target"
"""Attribute of a criterion with class weights while a callback has changed its target."""


@dataclass(frozen=True, eq=False)
class ChangedTarget:
    """A target that is not the given one, and whose weight counts."""

    final: Tensor
    """What the criterion gets: int64 labels (B,), or rows (B, K)."""

    unmixed: Tensor
    """The same before samples were mixed."""

    given: Tensor
    """The given labels, int64 (B,)."""

    mix: Callable[[Tensor], Tensor]
    """Mixes values of samples (B, ...) as the target was mixed."""

    def weights(self, class_weights: Tensor, ignore_index: int | None = -100) -> Tensor:
        """The weight of each sample, (B,): that of its given label, 0 where the criterion ignores its label."""
        weights = self.mix(class_weights[self.given])
        return weights if self.final.is_floating_point() else weights * (self.final != ignore_index)

    def cross_entropy(
        self,
        logits: Tensor,
        class_weights: Tensor,
        label_smoothing: float,
        reduction: str,
        ignore_index: int | None = -100,
    ) -> Tensor:
        r"""Cross entropy of which each sample has the weight of its given label.

        .. math::
            \frac{\sum_i \ell_i}{\sum_i w_{y_i}}, \qquad \ell_i = -\sum_k
            \Big((1 - \epsilon)\, w_{y_i} t_{ik} + \frac{\epsilon}{K} w_k\Big) \log p_{ik}

        Where the target is the given label, it is what torch computes. Mixed samples have the mean of both losses and
        weights.

        Args:
            logits: (B, K), or their log-softmax.
            class_weights: w, (K,).
            label_smoothing: :math:`\epsilon`.
            reduction: ``"mean"``, ``"sum"`` or ``"none"``.
            ignore_index: Label whose samples have no loss.

        Returns:
            Scalar, or (B,) without reduction.
        """
        log_probability = logits.log_softmax(dim=1)
        soft = self.unmixed.is_floating_point()
        rows = self.unmixed if soft else one_hot(self.unmixed, logits.shape[1], dtype=log_probability.dtype)
        weighed = self.mix(class_weights[self.given].unsqueeze(1) * rows)
        weighed = (1 - label_smoothing) * weighed + label_smoothing / logits.shape[1] * class_weights
        losses = -(weighed * log_probability).sum(dim=1)
        if not self.final.is_floating_point():
            losses = losses * (self.final != ignore_index)
        if reduction == "none":
            return losses
        return losses.sum() / (1 if reduction == "sum" else self.weights(class_weights, ignore_index).sum())


def weighs_classes(criterion: object) -> bool:
    """Whether the criterion's mean divides by the sum of the labels' class weights, as torch's cross entropy does."""
    return getattr(type(criterion), "forward", None) in (nn.CrossEntropyLoss.forward, nn.NLLLoss.forward)


def has_custom_class_weights(criterion: nn.Module) -> bool:
    """Whether it holds class weights but is none of torch's criteria (a subclass, say): how it uses them is unknown."""
    own = {**vars(criterion), **dict(criterion.named_buffers(recurse=False))}
    own |= dict(criterion.named_parameters(recurse=False))
    named = any("weight" in name and isinstance(value, Tensor) and value.ndim == 1 for name, value in own.items())
    parts = [part for part in criterion.modules() if isinstance(part, nn.CrossEntropyLoss) and part.weight is not None]
    torch_itself = type(criterion).__module__ == nn.MSELoss.__module__
    return (named and not torch_itself and not weighs_classes(criterion)) or not all(map(weighs_classes, parts))


def given_weights(criterion: Any, target: Tensor) -> Tensor | None:
    """The weights (B,) of the samples in a batch whose target a callback has changed to this one."""
    changed: ChangedTarget | None = vars(criterion).get(_CHANGED)
    if changed is None or target is not changed.final:
        return None
    return changed.weights(criterion.weight, criterion.ignore_index)


WEIGHED = (nn.CrossEntropyLoss, nn.NLLLoss)
"""What may have class weights that follow a changed target."""


class GivenClassWeights:
    """Lets every cross entropy with class weights in a criterion mean those of the given labels, batch by batch.

    Args:
        criterion: The criterion; it is not kept alive.
    """

    def __init__(self, criterion: nn.Module) -> None:
        self._criterion = ref(criterion)
        self._parts: list[tuple[nn.Module, Any]] = []

    def enter(self, changed: ChangedTarget | None) -> None:
        """The criterion is about to be called, with a changed target or with the given one: torch's meaning stands."""
        criterion = self._criterion()
        if changed is None or criterion is None:
            return
        for part in criterion.modules():
            if isinstance(part, WEIGHED) and part.weight is not None:
                self._parts.append((part, part.register_forward_hook(_weigh, with_kwargs=True)))
                vars(part)[_CHANGED] = changed

    def leave(self) -> None:
        """The batch is over."""
        for part, handle in self._parts:
            handle.remove()
            vars(part).pop(_CHANGED, None)
        self._parts = []


def _weigh(criterion: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor | None:
    logits, target = (*args, *(kwargs[name] for name in ("input", "target")[len(args) :]))
    changed: ChangedTarget = vars(criterion)[_CHANGED]
    if target is changed.final:
        smoothing = getattr(criterion, "label_smoothing", 0.0)
        return changed.cross_entropy(logits, criterion.weight, smoothing, criterion.reduction, criterion.ignore_index)
    if target.is_floating_point():
        raise NoisyLabelError(
            "Class weights have no meaning for soft targets that the criterion has changed on the way to "
            f"{type(criterion).__name__}: leave out its `weight`, or smooth by its `label_smoothing`."
        )
    return None
