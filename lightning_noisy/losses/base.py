"""The contract between a loss and the module or project that calls it."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.private_api import calling_module


class SampleMemory(Protocol):
    """What a loss needs of a per-sample table; :class:`lightning_noisy.SampleStore` is one."""

    def get(self, index: Tensor) -> Tensor:
        """The rows of the samples ``index`` (B,)."""
        ...

    def update(self, index: Tensor, values: Tensor) -> Tensor:
        """Write rows and return them."""
        ...

    def lerp(self, index: Tensor, values: Tensor, weight: float) -> Tensor:
        """``row <- row + weight * (value - row)``; returns the new rows."""
        ...


class NoisyLabelLoss(nn.Module):
    """Base of the losses: a reduction, what they need beside logits and target, and their memory.

    ``forward(logits (B, K), target, **context)`` takes int64 targets (B,) and, where :attr:`soft_targets` is true,
    floating-point targets (B, K). The caller passes exactly the keywords that :attr:`requires` names.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch, as in torch.

    Raises:
        NoisyLabelError: Another reduction.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Keywords of ``forward``, out of index, features, parameters, views, epoch, total_epochs."""

    soft_targets: ClassVar[bool] = False
    """Whether ``forward`` takes targets (B, K)."""

    extra_outputs: ClassVar[int] = 0
    """Outputs of the network that the loss needs beside the K of the classes, after which they stand."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_argument(reduction in ("mean", "sum", "none"), "reduction", "'mean', 'sum' or 'none'", reduction)
        self.reduction = reduction
        self.memory: dict[str, SampleMemory] = {}

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make the parts whose size depends on the network. Called once, before the optimizer is made."""

    def memory_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The per-sample tables of the loss: name -> shape of a row. They start at zero; ``{}`` means no memory."""
        return {}

    def recall(self, name: str) -> SampleMemory:
        """The table ``name`` of :meth:`memory_shapes`.

        Raises:
            NoisyLabelError: Nobody has attached it; or a Trainer trains, and no run owns it.
        """
        table = self.memory.get(name)
        if not getattr(table, "in_run", False) and calling_module() is not None:
            raise NoisyLabelError(
                f"{type(self).__name__} keeps a table of the training set, which nobody would save or merge here: add "
                "the callback `LossMemory()` to the Trainer, or use the loss in a NoisyLabelModule."
            )
        if table is None:
            raise NoisyLabelError(
                f"{type(self).__name__} keeps a table of the training set that is not attached yet: in a loop of your "
                f"own set `loss.memory[{name!r}] = SampleStore(...)` before training."
            )
        return table

    def reduce(self, losses: Tensor) -> Tensor:
        """Reduce per-sample losses (B,) as ``reduction`` says."""
        if self.reduction == "mean":
            return losses.mean()
        return losses.sum() if self.reduction == "sum" else losses

    def extra_repr(self) -> str:
        """The plain arguments, for ``print``."""
        plain = (int, float, str, bool)
        arguments = {k: v for k, v in vars(self).items() if not k.startswith("_") and isinstance(v, plain)}
        return ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "training")
