"""Where logits and target stand among the arguments of a criterion."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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
    first_two: tuple[str, str] | None
    """Their names; None where they are positions of ``*args``."""
    context: Mapping[str, Any]
    """What else it was called with, by name."""

    def with_target(self, target: Tensor, **context: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call, but with another target and with more keywords."""
        bound = self.arguments
        if self.first_two is None:
            return (bound.args[0], target, *bound.args[2:]), {**bound.kwargs, **context}
        changed = inspect.BoundArguments(bound.signature, OrderedDict(bound.arguments, **{self.first_two[1]: target}))
        return changed.args, {**changed.kwargs, **context}


class CriterionSignature:
    """The signature of a criterion, whose first two arguments are logits and target.

    Args:
        forward: The criterion's forward, or a function.
        name: Its name, for messages.
    """

    def __init__(self, forward: Callable[..., Any], name: str) -> None:
        self.name = name
        self._signature = inspect.signature(forward)
        parameters = self._signature.parameters.items()
        self._names = [name for name, parameter in parameters if parameter.kind not in _VARIADIC]
        self._first_two = (self._names[0], self._names[1]) if len(self._names) > 1 else None
        self._variadic = not self._names

    def by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call."""
        return dict(self._signature.bind(*args, **kwargs).arguments)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundCall:
        """Take the arguments of a call apart.

        Raises:
            NoisyLabelError: They are not logits (B, K) and labels (B,), and what else it takes.
        """
        bound = self._signature.bind(*args, **kwargs)
        if self._variadic and len(args) > 1:
            call = BoundCall(bound, args[0], args[1], None, kwargs)
        elif self._first_two is not None and all(name in bound.arguments for name in self._first_two):
            logits, target = (bound.arguments[name] for name in self._first_two)
            named = {name: bound.arguments[name] for name in self._names[2:] if name in bound.arguments}
            others = {name: value for name, value in bound.kwargs.items() if name not in self._first_two}
            call = BoundCall(bound, logits, target, self._first_two, named | others)
        else:
            raise NoisyLabelError(
                f"Expected `{self.name}` to be called as criterion(logits, target), but its forward is "
                f"{self._signature}."
            )
        self._check_rows(call.logits, call.target)
        return call

    def _check_rows(self, logits: Tensor, given: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise NoisyLabelError(
                f"Expected `{self.name}` to get logits (B, K) with K >= 2 classes, but got {tuple(logits.shape)}."
            )
        if given.ndim != 1 or given.is_floating_point():
            raise NoisyLabelError(
                f"Expected `{self.name}` to get labels (B,) of integers, but got {given.dtype} {tuple(given.shape)}."
            )
