"""One classifier under masking: taken over at the start, masked, given back at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_noisy.callbacks.classifier_layers import find_head
from lightning_noisy.collectives import process_count, sum_over_processes
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.scores import dense_gradient
from lightning_noisy.targets.passes import is_aside

_OWNER = "_head_mask"
"""Attribute of a layer under masking: who masks it. A copy of the layer has it too, but is not its owner's head."""


class HeadMask:
    """The mask of one head, and the head it belongs to while training lasts.

    Args:
        name: Dotted name of the head in the LightningModule.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mask: Tensor | None = None
        """The mask of now (K, D), None before the first step."""
        self.gradient: Tensor | None = None
        """The dense gradient (K, F, D) of the last recorded optimizer step, the mean over processes."""
        self.renewed_at: int | None = None
        """The step or epoch the mask is from."""
        self._recorded_step: int | None = None
        self._recorded: Tensor | None = None
        self._basis: Tensor | None = None
        self.head: Any = None
        """The head, a :class:`~lightning_noisy.heads.MaskableHead` from :meth:`take` to :meth:`release`."""
        self.called: bool | None = None
        """Whether a training batch has called the head; None before the first one has ended."""
        self._own_class: type[nn.Module] | None = None
        self._hook: Any = None
        self._awaited_step: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Classes K and features D."""
        return self.head.out_features, self.head.in_features

    @property
    def weight(self) -> nn.Parameter:
        """A parameter, for its device and dtype."""
        own = self.head._parameters  # the search through submodules takes as long as sorting a small head
        weight: nn.Parameter = next(iter(own.values())) if own else next(self.head.parameters())
        return weight

    def take(self, pl_module: LightningModule) -> None:
        """Find the layer and make it maskable, the same object.

        Raises:
            NoisyLabelError: There is no such layer, it cannot be masked, is masked already, or is compiled.
        """
        if self.head is not None:
            return
        layer, maskable = find_head(pl_module, self.name)
        owner = vars(layer).get(_OWNER)
        if owner is not None and owner.head is layer:
            raise NoisyLabelError(
                f"`{self.name}` is masked already, under another name or by another MaskRefresh: name it once."
            )
        object.__setattr__(layer, _OWNER, self)
        self.head, self._own_class = layer, type(layer)
        layer.__class__ = maskable

    def release(self) -> None:
        """Give the layer back as it was."""
        self._recorded_step = self._recorded = None
        if self.head is not None:
            self.stop_listening()
            for name in ("edge_mask", "on_basis", "_even_grid", _OWNER):
                vars(self.head).pop(name, None)
            self.head.__class__ = self._own_class
        self.head = self._own_class = None

    def show(self, mask: Tensor | None) -> None:
        """Let the head use a mask from now on, or none."""
        # nn.Module's own assignment looks through parameters, buffers and modules first.
        object.__setattr__(self.head, "edge_mask", mask)

    def leave_batch(self, keep: bool) -> None:
        """See no forward pass until the next batch, and show no mask either unless it is to be kept."""
        self.stop_listening()
        if not keep:
            self.show(None)

    def forget(self) -> None:
        """Begin without a past."""
        self.mask = self.gradient = self.renewed_at = None

    def adopt(self) -> None:
        """Bring what a checkpoint may have brought to the layer's device, the mask also to its dtype.

        Raises:
            NoisyLabelError: It belongs to a layer of another shape.
        """
        if self.mask is None:
            return
        if tuple(self.mask.shape) != self.shape:
            raise NoisyLabelError(
                f"The checkpoint's mask of `{self.name}` has shape {tuple(self.mask.shape)}, the layer "
                f"{self.shape}: resume with the model that wrote it."
            )
        # A copy, since a test before may have made a tensor in inference mode, which cannot be trained with.
        self.mask = self.mask.to(self.weight.device, self.weight.dtype, copy=True)
        if self.gradient is not None:
            self.gradient = self.gradient.to(self.weight.device, copy=True)

    def await_call(self) -> None:
        """Notice the first call."""
        listener = self.head.on_basis

        def notice(basis: Tensor) -> None:
            self.called, self.head.on_basis = True, listener
            if listener is not None:
                listener(basis)

        self.head.on_basis = notice

    def end_batch(self, keep: bool) -> None:
        """A training batch has ended; a step may leave the head out."""
        self.leave_batch(keep)
        first, self.called = self.called is None, bool(self.called)
        if first and not self.called:
            rank_zero_warn(f"The first training step has not called `{self.name}`: its mask waits until one does.")

    def check_called(self) -> None:
        """Training has come to its end.

        Raises:
            NoisyLabelError: No training step has called the head, so its mask has acted on nothing.
        """
        if self.called is False:
            raise NoisyLabelError(
                f"No training step has called `{self.name}`, so its mask acted on nothing: name the layer that makes "
                "the logits, and call it as a module instead of using its weight."
            )

    def await_step(self, trainer: Trainer, prepare: Callable[[HeadMask], None]) -> None:
        """An optimizer step begins, maybe not the last one of its batch: the first pass after it prepares the head.

        Args:
            trainer: Counts the steps.
            prepare: Renews the mask where it is due.
        """
        step, listener = trainer.global_step, self.head.on_basis
        if step == self._awaited_step:  # an optimizer that evaluates the loss several times in a step
            return
        self._awaited_step = step

        def look(basis: Tensor) -> None:
            nonlocal listener
            if trainer.global_step != step and torch.is_grad_enabled():
                self.stop_listening()
                prepare(self)
                if self.head.on_basis is not None:
                    self.head.on_basis(basis)
            elif listener is not None:
                self.head.on_basis = listener
                listener(basis)
                listener, self.head.on_basis = self.head.on_basis, look

        self.head.on_basis = look

    def record_gradient(self, step: int) -> None:
        """Add up the dense gradient of this batch's training forward passes with those of the same optimizer step."""
        if step != self._recorded_step:
            self._recorded_step, self._recorded = step, None
        self.head.on_basis = self._keep_basis
        self._hook = self.head.register_forward_hook(self._watch)

    def stop_listening(self) -> None:
        """See no forward pass until the next batch."""
        if self.head.on_basis is not None:
            self.head.on_basis = None
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._basis = self._awaited_step = None

    def finish_recording(self) -> None:
        """Keep the recorded gradient, if a step was recorded, as DDP does its mean over processes: a collective."""
        if self._recorded_step is None:
            return
        if self._recorded is None:  # other processes may have one, and wait
            coefficients = self.head.coefficients().detach()
            self._recorded = torch.zeros_like(
                coefficients, dtype=torch.promote_types(coefficients.dtype, torch.float32)
            )
        self.gradient = sum_over_processes(self._recorded) / process_count()
        self._recorded_step = self._recorded = None

    def state_dict(self) -> dict[str, Any]:
        """Mask, gradient and their time as plain values."""
        return {
            "renewed_at": self.renewed_at,
            "mask": None if self.mask is None else self.mask.bool().cpu(),
            "gradient": None if self.gradient is None else self.gradient.cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; :meth:`adopt` brings it to the layer's device.

        Raises:
            NoisyLabelError: It is no state of a mask.
        """
        shapes = [None if part is None else getattr(part, "ndim", 0) for part in (state["mask"], state["gradient"])]
        if shapes[0] not in (None, 2) or shapes[1] not in (None, 3) or not isinstance(state["renewed_at"], int | None):
            raise NoisyLabelError(f"The checkpoint's mask of `{self.name}` is none: take another checkpoint.")
        self.mask, self.gradient, self.renewed_at = state["mask"], state["gradient"], state["renewed_at"]

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no layer: the original has it."""
        outside = dict.fromkeys(("head", "_own_class", "_hook", "_recorded_step", "_recorded", "_basis"))
        return {**self.__dict__, **outside}

    def _keep_basis(self, basis: Tensor) -> None:
        self._basis = basis

    def _watch(self, head: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        basis, self._basis = self._basis, None
        if not logits.requires_grad or basis is None:
            return

        def add(gradient: Tensor) -> None:
            if is_aside():
                return
            dense = dense_gradient(self.head.rows(gradient.detach()), basis)
            self._recorded = dense if self._recorded is None else self._recorded + dense

        logits.register_hook(add)  # type: ignore[no-untyped-call]
