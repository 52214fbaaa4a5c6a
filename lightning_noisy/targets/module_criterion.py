"""A criterion that is a module of the project."""

from __future__ import annotations

from weakref import ref

from torch import nn

from lightning_noisy.losses.class_weights import WEIGHED, ChangedTarget, GivenClassWeights
from lightning_noisy.targets.signature import CriterionSignature


class ModuleCriterion:
    """A module, which a forward pre-hook reaches. It is not kept alive.

    Args:
        module: The module, whose first two arguments are logits and target.
        name: Its dotted name.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.name = name
        self.signature = CriterionSignature(module.forward, name)
        self.reference = ref(module)
        self._class_weights = GivenClassWeights(module)

    @property
    def module(self) -> nn.Module | None:
        """The module, None when it is gone."""
        return self.reference()

    @property
    def weighs_classes(self) -> bool:
        """Whether it has class weights, which follow a changed target."""
        module = self.reference()
        parts = () if module is None else module.modules()
        return any(getattr(part, "weight", None) is not None for part in parts if isinstance(part, WEIGHED))

    def same(self, other: object) -> bool:
        """Whether another one is the same module."""
        return isinstance(other, ModuleCriterion) and other.module is self.module

    def enter(self, changed: ChangedTarget | None) -> None:
        """The target of a batch is this one; class weights follow it."""
        self._class_weights.enter(changed)

    def leave(self) -> None:
        """The batch is over."""
        self._class_weights.leave()
