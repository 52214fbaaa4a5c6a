"""Conditions on tensors: at once on the CPU, where looking is free; on an accelerator together, at the next pause."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import is_compiled


class DeferredChecks:
    """Collects boolean scalars on a device and reads them back together.

    Reading one value from an accelerator stops it; a training step must not. So conditions wait until
    :meth:`settle`, which callers call at logging steps, at epoch ends and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[Tensor, Callable[[], str]]] = []
        """Conditions that nobody has looked at yet."""

    def require(self, condition: Tensor, message: Callable[[], str]) -> None:
        """Ask for a condition.

        Args:
            condition: Boolean scalar tensor.
            message: Makes the error's line; called only when the condition does not hold.

        Raises:
            NoisyLabelError: The condition is on the CPU and does not hold.
        """
        if condition.device.type != "cpu":
            self.pending.append((condition, message))
        elif not condition:
            raise NoisyLabelError(message())

    def settle(self) -> None:
        """Read all waiting conditions back, with one transfer.

        Raises:
            NoisyLabelError: One does not hold; the message is that of the first.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        for holds, (_, message) in zip(torch.stack([c for c, _ in pending]).tolist(), pending, strict=True):
            if not holds:
                raise NoisyLabelError(message())


def check_labels(labels: Tensor, num_classes: int | None, name: str) -> None:
    """Refuse labels outside [0, num_classes).

    Args:
        labels: int64 (N,) on the CPU.
        num_classes: Number of classes K; None sets no upper bound.
        name: What the labels are, for the message.

    Raises:
        NoisyLabelError: One lies outside; the message names the first and its position.
    """
    wrong = (labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        position = int(wrong[0])
        wanted = "to be at least 0" if num_classes is None else f"to lie in [0, {num_classes})"
        raise NoisyLabelError(
            f"Expected {name} {wanted}, but sample {position} has label {int(labels[position])} "
            f"({len(wrong)} of {len(labels)} are outside): mend the labels or `num_classes`."
        )


def check_not_compiled(root: nn.Module, module: nn.Module | None, name: str) -> None:
    """Refuse modules that arrive compiled, where hooks and masks would silently not act.

    Raises:
        NoisyLabelError: ``root`` (the LightningModule), ``module`` or what it lies in, by its dotted name, is compiled.
    """
    parts = name.split(".")
    paths = {".".join(parts[:depth]) for depth in range(1, len(parts))}
    around = [path for path, part in root.named_modules(remove_duplicate=False) if path in paths and is_compiled(part)]
    if is_compiled(root) or (module is not None and is_compiled(module)) or around:
        what = f"`{around[0]}`, which `{name}` lies in," if around else f"`{name}` or its LightningModule"
        raise NoisyLabelError(
            f"{what} is compiled, and would not see the change: compile the backbone alone, "
            "`self.backbone = torch.compile(self.backbone)`."
        )
