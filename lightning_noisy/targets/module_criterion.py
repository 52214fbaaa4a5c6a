"""A criterion that is a module of the project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from torch import nn

from lightning_noisy.losses.class_weights import ChangedTarget, GivenClassWeights
from lightning_noisy.targets.signature import CriterionSignature

Change = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
"""From the arguments of a call to those that the criterion gets."""


class ModuleCriterion:
    """A module, which a forward pre-hook reaches. It is not kept alive.

    Args:
        module: The module, whose first two arguments are logits and target.
        name: Its dotted name.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.name = name
        self.signature = CriterionSignature(module.forward, name)
        self._module = ref(module)
        self._class_weights = GivenClassWeights(module)

    @property
    def module(self) -> nn.Module | None:
        """The module, None when it is gone."""
        return self._module()

    def same(self, other: object) -> bool:
        """Whether another one is the same module."""
        return isinstance(other, ModuleCriterion) and other.module is self.module

    def attach(self, change: Change) -> Callable[[], None]:
        """Let calls pass through a function, until what this returns is called."""
        module = self.module
        assert module is not None

        def hook(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # Deep copies of the module carry the hook along, and it passes them by.
            return change(args, kwargs) if called is self.module else None

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove

    def enter(self, changed: ChangedTarget | None) -> None:
        """The target of a batch is this one; class weights follow it."""
        self._class_weights.enter(changed)

    def leave(self) -> None:
        """The batch is over."""
        self._class_weights.leave()
