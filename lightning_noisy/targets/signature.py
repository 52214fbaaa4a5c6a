"""Where logits and target stand among the arguments of a criterion."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class BoundCall:
    """A call of a criterion, its arguments by name."""

    arguments: inspect.BoundArguments
    logits: Tensor
    """Its first argument."""
    target: Tensor
    """Its second argument."""
    target_name: str
    context: Mapping[str, Any]
    """What else it was called with."""


class CriterionSignature:
    """The signature of a criterion, whose first two arguments are logits and target.

    Args:
        criterion: The criterion.
        name: Its name, for messages.
    """

    def __init__(self, criterion: nn.Module, name: str) -> None:
        self.name = name
        self._signature = inspect.signature(criterion.forward)
        parameters = self._signature.parameters.items()
        self._names = [name for name, parameter in parameters if parameter.kind not in _VARIADIC]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundCall:
        """Take the arguments of a call apart.

        Raises:
            NoisyLabelError: They are not logits (B, K) and labels (B,), and what else it takes.
        """
        bound = self._signature.bind(*args, **kwargs)
        first_two = self._names[:2]
        if len(first_two) < 2 or any(name not in bound.arguments for name in first_two):
            raise NoisyLabelError(
                f"Expected `{self.name}` to be called as criterion(logits, target), but its forward is "
                f"{self._signature}."
            )
        named = {name: bound.arguments[name] for name in self._names[2:] if name in bound.arguments}
        context = named | {name: value for name, value in bound.kwargs.items() if name not in first_two}
        logits, target = (bound.arguments[name] for name in first_two)
        self._check_rows(logits, target)
        return BoundCall(bound, logits, target, first_two[1], context)

    def _check_rows(self, logits: Tensor, given: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise NoisyLabelError(
                f"Expected `{self.name}` to get logits (B, K) with K >= 2 classes, but got {tuple(logits.shape)}."
            )
        if given.ndim != 1 or given.is_floating_point():
            raise NoisyLabelError(
                f"Expected `{self.name}` to get labels (B,) of integers, but got {given.dtype} {tuple(given.shape)}."
            )
