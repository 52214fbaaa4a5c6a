"""The features that go into a classifier, for losses that look at them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_noisy.errors import NoisyLabelError


class HeadInput:
    """Notes what a layer is called with."""

    def __init__(self) -> None:
        self._name = ""
        self._hook: RemovableHandle | None = None
        self._features: Tensor | None = None

    def watch(self, root: nn.Module, name: str) -> None:
        """Note the input of a layer from now on.

        Args:
            root: The module that is trained.
            name: Dotted name of the layer.

        Raises:
            NoisyLabelError: There is no such layer.
        """
        self.stop()
        layer = dict(root.named_modules(remove_duplicate=False)).get(name)
        if layer is None:
            raise NoisyLabelError(
                f"{type(root).__name__} has no layer `{name}` whose input are the features: name its classifier with "
                "`LossMemory(head=...)`, or pass `features` to the loss."
            )
        self._name, self._hook = name, layer.register_forward_pre_hook(self._note)

    def take(self, rows: int) -> Tensor:
        """The features (rows, D) of a call with this many rows of logits, with their gradient.

        Raises:
            NoisyLabelError: The layer was not called with as many.
        """
        features, self._features = self._features, None
        if features is None or len(features) != rows:
            came = "was not called before it" if features is None else f"was called with {len(features)} rows"
            raise NoisyLabelError(
                f"The loss was called with {rows} rows of logits, but `{self._name}` {came}: pass "
                "`features` to the loss."
            )
        return features

    def stop(self) -> None:
        """Note nothing any more."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._features = None

    def _note(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._features = inputs[0]

    def __getstate__(self) -> dict[str, Any]:
        """Copies watch nothing."""
        return vars(HeadInput())
