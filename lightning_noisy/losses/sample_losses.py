"""The loss of each sample, whatever the criterion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.base import NoisyLabelLoss, no_sample_values
from lightning_noisy.losses.class_weights import given_weights, weighs_classes


@dataclass(frozen=True, eq=False)
class SampleLosses:
    """The losses of a batch and what the criterion's mean divides them by. ``each[rows]`` are those of some samples."""

    losses: Tensor
    """What the criterion gives with ``reduction="none"``, (B,); the mean over the rest where it gives (B, ...)."""

    weights: Tensor
    """What each sample adds to the divisor of the mean, (B,): 1, or a class weight, or 0 where it is ignored."""

    def __getitem__(self, rows: Tensor | slice) -> SampleLosses:
        return SampleLosses(self.losses[rows], self.weights[rows])

    def mean(self) -> Tensor:
        """The criterion's own ``"mean"`` of these samples, a scalar; NaN where there are none, as in torch."""
        return self.losses.sum() / self.weights.sum()

    def balanced(self) -> Tensor:
        """The losses scaled such that their plain mean is :meth:`mean`, (B,)."""
        return self.losses * (len(self.losses) / self.weights.sum())


@dataclass(frozen=True)
class PerSample:
    """A criterion that gives the losses of samples; made by :func:`per_sample`."""

    criterion: nn.Module

    def __call__(self, logits: Tensor, target: Tensor, **context: Any) -> SampleLosses:
        """The losses of a batch, differentiable.

        Args:
            logits: Floating-point tensor (B, K).
            target: What the criterion takes.
            context: The keywords of the criterion.

        Returns:
            Losses and weights, (B,) each.

        Raises:
            NoisyLabelError: Without reduction the criterion gives neither (B,) nor (B, ...), or what it refuses.
        """
        return losses_of_samples(self.criterion, logits, target, context)


def per_sample(criterion: nn.Module) -> PerSample:
    """Make a criterion give the loss of each sample, and the weights that make its own mean of them.

    The criterion is called as ever, so that its hooks act; only its ``reduction`` is ``"none"`` for the time of the
    call. Where a hook replaces the target, the weights are those of the target that the criterion has seen.

    Args:
        criterion: A loss of this package, or a torch criterion with a ``reduction``, whatever that is.

    Returns:
        A callable ``(logits, target, **context) -> SampleLosses``.

    Raises:
        NoisyLabelError: A class, a criterion that has no values of samples, or one of which it is not known how its
            mean weighs them.

    Example:
        >>> import torch
        >>> criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
        >>> each = per_sample(criterion)(torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> each.losses, each.weights, each.mean()  # log 2, 3 log 2
        (tensor([0.6931, 2.0794]), tensor([1., 3.]), tensor(0.6931))
    """
    check_criterion(criterion, "criterion")
    if isinstance(criterion, NoisyLabelLoss) and not criterion.sample_values:
        raise no_sample_values(criterion)
    return PerSample(criterion)


def losses_of_samples(criterion: nn.Module, logits: Tensor, target: Tensor, context: dict[str, Any]) -> SampleLosses:
    """The losses of a batch by a criterion that :func:`check_criterion` has let pass.

    Args:
        criterion: The criterion; one without values of samples has that of the batch in every entry.
        logits: Floating-point tensor (B, K).
        target: What the criterion takes.
        context: The keywords of the criterion.

    Raises:
        NoisyLabelError: It gives neither (B,) nor (B, ...).
    """
    weighs = weighs_classes(criterion)
    with _without_reduction(criterion), _seen_targets(criterion) if weighs else nullcontext([target]) as seen:
        values: Tensor = criterion(logits, target, **context)
    if values.ndim == 0 or len(values) != len(logits):
        raise NoisyLabelError(
            f"{type(criterion).__name__} with reduction='none' gave a tensor of shape {tuple(values.shape)} for a "
            f"batch of {len(logits)}: wanted ({len(logits)},), or ({len(logits)}, ...), the loss of each sample."
        )
    weights = torch.ones_like(values, dtype=torch.promote_types(values.dtype, torch.float32))
    if weighs:
        weights = weights * _class_weights(criterion, seen[-1])
    if values.ndim > 1:
        values, weights = values.flatten(1).mean(dim=1), weights.flatten(1).mean(dim=1)
    return SampleLosses(values, weights)


def check_criterion(criterion: object, name: str) -> None:
    """Refuse what has no losses of samples whose mean is known.

    Args:
        criterion: What came.
        name: The argument it came from.

    Raises:
        NoisyLabelError: A class, no ``reduction`` or an unusual one, or a mean that weighs samples in a way unknown.
    """
    kind = type(criterion).__name__
    if isinstance(criterion, type):
        made = criterion.__name__
        raise NoisyLabelError(
            f"Expected argument `{name}` to be a loss, but got the class {made}: make one, `{made}()`."
        )
    reduction = getattr(criterion, "reduction", None)
    if reduction not in ("mean", "sum", "none"):
        raise NoisyLabelError(
            f"Expected argument `{name}` to be a loss that can give one value for each sample, so with a `reduction` "
            f"of 'mean', 'sum' or 'none', but got {kind} with reduction={reduction!r}: write it as a NoisyLabelLoss."
        )
    known = isinstance(criterion, NoisyLabelLoss) or weighs_classes(criterion) or _means_plainly(criterion)
    if isinstance(criterion, nn.CTCLoss) or (not known and _may_weigh(criterion)):
        raise NoisyLabelError(
            f"Expected argument `{name}` to be a loss of which it is known how its mean weighs samples, but got {kind} "
            "with weights of its own: write it as a NoisyLabelLoss."
        )


def _means_plainly(criterion: object) -> bool:
    """Whether it is a criterion of torch whose mean is that of its values."""
    forward = getattr(type(criterion), "forward", None)
    return getattr(forward, "__module__", "") == nn.MSELoss.__module__


def _class_weights(criterion: Any, target: Tensor) -> Tensor | float:
    """What each label adds to the divisor of torch's mean, a changed target what its given label does, a soft one 1."""
    weights = given_weights(criterion, target)
    if weights is not None or target.is_floating_point():
        return 1.0 if weights is None else weights
    counted: Tensor = target != criterion.ignore_index
    return counted if criterion.weight is None else counted * criterion.weight[target.where(counted, 0)]


def _may_weigh(criterion: Any) -> bool:
    """Whether a criterion that is neither ours nor torch's ignores a class or holds a vector, as class weights are."""
    parts = [vars(module) for module in criterion.modules()]
    held = [
        value for own in parts for values in (own, own["_buffers"], own["_parameters"]) for value in values.values()
    ]
    vectors = [value for value in held if isinstance(value, Tensor) and value.ndim == 1]
    return bool(vectors) or any(own.get("ignore_index", -100) >= 0 for own in parts)


@contextmanager
def _without_reduction(criterion: Any) -> Iterator[None]:
    reduction = criterion.reduction
    criterion.reduction = "none"
    try:
        yield
    finally:
        criterion.reduction = reduction


@contextmanager
def _seen_targets(criterion: nn.Module) -> Iterator[list[Tensor]]:
    """The targets of the calls of a criterion, as its pre-hooks leave them; the outermost call ends last."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen.append(args[1] if len(args) > 1 else kwargs["target"])

    handle = criterion.register_forward_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
