"""The per-sample stores of losses: made when they are first needed, saved, merged and refused like any other."""

from __future__ import annotations

from typing import Any
from weakref import ref

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.losses._counting import CountingLoss
from lightning_noisy.state.run_state import RunState
from lightning_noisy.state.section import Section
from lightning_noisy.state.training_set import training_set_of


class LossStores:
    """Gives the losses of a module the stores that they keep.

    Stores are made at a loss's first call in training, whose logits tell the number of classes.
    """

    def __init__(self) -> None:
        self._losses: list[NoisyLabelLoss] = []
        self._sections: list[Section] = []
        self._hooks: list[RemovableHandle] = []

    def __bool__(self) -> bool:
        """Whether there is a loss that keeps a store."""
        return bool(self._losses)

    def join(self, run: RunState, root: nn.Module) -> None:
        """Let a run own what the losses of a module keep: at each stage, so that also a test's checkpoint has it.

        Losses that count batches learn which one is open.

        Args:
            run: The run.
            root: The LightningModule. A loss inside another one belongs to that.
        """
        for part in root.modules():
            if isinstance(part, CountingLoss):
                part.open_batch = run.open_batch
        named = [(name, loss) for name, loss in outermost_losses(root) if loss.store_shapes(num_classes=2)]
        losses = [loss for _, loss in named]
        if losses != self._losses:
            self._losses = losses
            self._sections = [_section_of(name, loss) for name, loss in named]
        for section in self._sections:
            run.add(section)

    def begin(self) -> None:
        """Training starts: what a loss held before is another run's."""
        self._attach(self._sections)

    def try_out(self, trainer: Trainer, device: torch.device) -> None:
        """A trial starts, of which nothing is to be kept; :meth:`begin` ends it."""
        scratch = [Section(section.owner, section.key, storages=section.storages) for section in self._sections]
        for section in scratch:
            section.begin(training_set_of(trainer, section.owner)[0].num_samples, device)
        self._attach(scratch)

    def end(self) -> None:
        """Training is over; the losses keep what they have."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _attach(self, sections: list[Section]) -> None:
        self.end()
        for loss, section in zip(self._losses, sections, strict=True):
            loss.stores = {}
            self._hooks.append(_attach_at_first_call(loss, section))

    def __getstate__(self) -> dict[str, Any]:
        """Copies hold no losses: these are the original's."""
        return {"_losses": [], "_sections": [], "_hooks": []}


def _section_of(name: str, loss: NoisyLabelLoss) -> Section:
    storages = {store: loss.storage_of(store) for store in loss.store_shapes(num_classes=2)}
    return Section(type(loss).__name__, f"loss {name}", storages=storages)


def _attach_at_first_call(loss: NoisyLabelLoss, section: Section) -> RemovableHandle:
    original = ref(loss)  # a copy of the loss takes the hook along

    def attach(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if called is not original() or not called.training:
            return
        logits: Tensor = args[0] if args else kwargs["logits"]
        shapes = called.store_shapes(logits.shape[1] - called.extra_outputs)
        called.stores = {name: section.store(name, shape, device=logits.device) for name, shape in shapes.items()}
        handle.remove()

    handle: RemovableHandle = loss.register_forward_pre_hook(attach, prepend=True, with_kwargs=True)
    return handle


def outermost_losses(module: nn.Module, prefix: str = "") -> list[tuple[str, NoisyLabelLoss]]:
    """The losses of this package in a module that are no part of another one, with their dotted names."""
    if isinstance(module, NoisyLabelLoss):
        return [(prefix, module)]
    children = module.named_children()
    return [found for name, child in children for found in outermost_losses(child, f"{prefix}.{name}".lstrip("."))]
