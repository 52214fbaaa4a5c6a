"""A criterion that is a function of torch: ``F.cross_entropy(logits, target)`` in a step, or in what it calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.class_weights import ChangedTarget
from lightning_noisy.private_api import in_checkpointed_region
from lightning_noisy.targets.passes import is_aside
from lightning_noisy.targets.signature import CriterionSignature

Change = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
"""From the arguments of a call to those that the criterion gets."""

FUNCTIONS: dict[str, Callable[..., Tensor]] = {"F.cross_entropy": F.cross_entropy, "F.nll_loss": F.nll_loss}
"""What a step may call, by the names that a callback's ``criterion`` takes."""


class FunctionalCriterion:
    """Functions that are reached while a training step runs, also inside models that compute their own loss.

    A call counts if a gradient goes through its logits. ``F.nll_loss`` with a soft target is the cross entropy of the
    log-probabilities. What is compiled around the call runs uncompiled; what a script hides is not seen.

    Args:
        names: The functions.
    """

    module = None
    """No module."""

    weighs_classes = True
    """Whether it has class weights, which follow a changed target: a call may have them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.name = " or ".join(names)
        self.signature = CriterionSignature(F.cross_entropy, self.name)
        self.names = names
        self._changed: ChangedTarget | None = None

    def same(self, other: object) -> bool:
        """Whether another one is about the same functions."""
        return isinstance(other, FunctionalCriterion) and other.names == self.names

    def mode(self, change: Change) -> TorchFunctionMode:
        """What is entered around a training step, so that calls pass through a function."""
        return _CriterionMode(self, change)

    def enter(self, changed: ChangedTarget | None) -> None:
        """The target of a batch is this one; class weights follow it."""
        self._changed = changed

    def leave(self) -> None:
        """The batch is over."""
        self._changed = None

    def aside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The mean that cross entropy gives, also of log-probabilities."""
        return self.result((), {**self.signature.by_name(args, kwargs), "reduction": "mean"}, F.cross_entropy)

    def result(self, args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[..., Tensor]) -> Tensor:
        """What the function gives for changed arguments.

        Raises:
            NoisyLabelError: Its arguments have no meaning for a soft target.
        """
        changed = self._changed
        if changed is None:
            return function(*args, **kwargs)
        options = self.signature.by_name(args, kwargs)
        target = options["target"]
        weight, soft = options.get("weight"), target.is_floating_point()
        if target is not changed.final or not (soft or weight is not None):
            return function(*args, **kwargs)
        ignored = options.get("ignore_index", -100)
        if soft and ignored >= 0:
            raise NoisyLabelError(f"`ignore_index` of `{self.name}` has no meaning for soft targets: leave it out.")
        reduction, smoothing = options.get("reduction", "mean"), options.get("label_smoothing", 0.0)
        if weight is None:
            return F.cross_entropy(options["input"], target, reduction=reduction, label_smoothing=smoothing)
        return changed.cross_entropy(options["input"], weight, smoothing, reduction, ignored)


class _CriterionMode(TorchFunctionMode):
    def __init__(self, criterion: FunctionalCriterion, change: Change) -> None:
        super().__init__()
        self._criterion, self._change = criterion, change
        self._functions = {FUNCTIONS[name] for name in criterion.names}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self._functions or is_aside():
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            raise NoisyLabelError(f"`{self._criterion.name}` is changed in a batch, so it cannot be compiled.")
        logits = args[0] if args else kwargs["input"]
        if not (torch.is_grad_enabled() and logits.requires_grad):
            return func(*args, **kwargs)
        if in_checkpointed_region():
            raise NoisyLabelError(
                f"`{self._criterion.name}` is called inside a checkpointed region, which would compute its gradient "
                "for the given target: call it outside of `torch.utils.checkpoint`."
            )
        return self._criterion.result(*self._change(args, kwargs), func)
