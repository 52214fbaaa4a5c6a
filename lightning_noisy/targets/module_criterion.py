"""A criterion that is a module of the project."""

from __future__ import annotations

import copy
from typing import Any
from weakref import ref

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError
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
        self._changed: ChangedTarget | None = None

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
        self._changed = changed
        self._class_weights.enter(changed)

    def leave(self) -> None:
        """The batch is over."""
        self._changed = None
        self._class_weights.leave()

    def aside(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What a copy gives, by its mean, without the hooks that are on the criterion.

        Raises:
            NoisyLabelError: It cannot be copied.
        """
        copied = self._copy()
        for hooks in (copied._forward_pre_hooks, copied._forward_hooks):
            hooks.clear()
        if getattr(copied, "reduction", None) in ("sum", "none"):
            copied.reduction = "mean"
        GivenClassWeights(copied).enter(self._changed)
        loss: Tensor = copied(*args, **kwargs)
        return loss

    def _copy(self) -> Any:
        shared: dict[int, Any] = {id(self._changed): self._changed}  # it is known by its identity
        try:
            return copy.deepcopy(self.reference(), shared)
        except Exception as error:  # whatever a project's own module holds
            raise NoisyLabelError(
                f"`{self.name}` cannot be copied ({type(error).__name__}: {' '.join(str(error).split())[:120]}), so "
                "its gradient for other labels is not known: let it hold no tensors with a gradient beside its "
                "parameters."
            ) from error
