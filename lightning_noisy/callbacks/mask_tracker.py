"""Which connections of a masked classifier are kept, and how fast that changes."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_noisy.callbacks.classifier_layers import default_heads
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import FigureWriter, mask_figure
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver, Section


class MaskTracker(Callback):
    """Shows the mask of a classifier that ``MaskRefresh``, or anything else, masks.

    It looks at the mask before each optimizer step that trains the head; without a mask every edge counts as kept.
    Each epoch it logs

    - ``mask/kept``: the mean share of edges that are kept,
    - ``mask/turnover``: the mean share of edges that have changed since the optimizer step before, also when that
      belongs to the epoch before; the very first step has none.

    A heat map shows, for each class (row) and input feature (column), the share of all optimizer steps so far in which
    that edge was kept: in TensorBoard, and as ``figures/mask.png`` in the run's folder at the end. A head that is given
    by another name than ``head`` has its name in all of these: ``mask/classifier/kept``,
    ``figures/mask-classifier.png``.

    Works in any project, with masks that are equal on all processes, as those of ``MaskRefresh`` are.

    Args:
        head: Dotted name of the classifier, as given to ``MaskRefresh``; None takes the only one of the module.
        figure_every_n_epochs: How often the TensorBoard figure is drawn; also at the end.

    Raises:
        NoisyLabelError: ``figure_every_n_epochs`` < 1; at start, no such layer.

    References:
        Dynamic Connection Masking, arXiv 2508.09697, figure 5.

    Example::

        Trainer(callbacks=[MaskRefresh(ratio=0.7), MaskTracker()])
    """

    def __init__(self, head: str | None = None, figure_every_n_epochs: int = 10) -> None:
        self.head = head
        self._name = head or ""
        self._path = "mask" if head in (None, "head") else f"mask/{head}"
        self.figures = FigureWriter(self._draw, self._path, self._path.replace("/", "-"), figure_every_n_epochs)
        self._class_names: tuple[str, ...] | None = None
        self._seen = _SeenMasks()
        name, parts = type(self).__name__, {"masks": self._seen}
        self.section = Section(name, self.state_key, self._epoch_metrics, per_sample=False, parts=parts)
        """What the callback keeps."""

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Metrics of each finished epoch: epoch -> name -> value."""
        return self.section.history

    @property
    def kept_share(self) -> Tensor | None:
        """Share of the optimizer steps so far in which each edge was kept, (K, D); None before the first mask."""
        return self._seen.kept_share()

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(head=self.head)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        RunDriver.of(trainer).add(self.section)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = (self.head,) if self.head is not None else default_heads(pl_module, type(self).__name__)
        if len(names) > 1:
            raise NoisyLabelError(
                f"MaskTracker tracks one head, but {type(pl_module).__name__} has {', '.join(names)}: name one with "
                "`head`, and add a MaskTracker for each."
            )
        self._name = names[0]
        if self._name not in dict(pl_module.named_modules(remove_duplicate=False)):
            raise NoisyLabelError(
                f"{type(pl_module).__name__} has no layer `{self._name}` whose mask could be tracked: give MaskTracker "
                "the dotted name of the layer that is masked."
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._class_names = RunDriver.of(trainer).origins.class_names

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        layer = pl_module.get_submodule(self._name)
        if _trains(optimizer, layer):
            self._seen.note(getattr(layer, "edge_mask", None))

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.figures.end_epoch(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.figures.end_training(trainer)

    def _epoch_metrics(self) -> dict[str, float]:
        return {f"{self._path}/{name}": mean for name, mean in self._seen.take_means().items()}

    def _draw(self) -> Figure | None:
        shares = self.kept_share
        return None if shares is None else mask_figure(shares.cpu().numpy(), names=self._class_names)


class _SeenMasks:
    """Sums over the masks of optimizer steps, of an epoch and of the whole training. Nothing is read back in a step."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without a past."""
        self.steps = 0
        self.kept_steps: Tensor | None = None
        self.previous: Tensor | None = None
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}
        self._noted: list[Tensor | None] = []

    def note(self, mask: Tensor | None) -> None:
        """The mask of a step; None keeps every edge. It counts when the batch has ended."""
        self._noted.append(mask)

    def enter_batch(self) -> None:
        """A training batch begins."""
        self._noted = []

    def end_batch(self) -> None:
        """The batch has ended, and the masks of its steps count."""
        for mask in self._noted:
            self._count(mask)
        self._noted = []

    def leave_batch(self) -> None:
        """The batch was given up."""
        self._noted = []

    def _count(self, mask: Tensor | None) -> None:
        if mask is not None and self.kept_steps is None:
            self.kept_steps = torch.full_like(mask, self.steps, dtype=torch.int32)
            self.previous = torch.ones_like(mask, dtype=torch.bool)
        kept, changed = (1.0, 0.0) if self.kept_steps is None else self._compare(mask)
        self._add("kept", kept)
        if self.steps > 0:
            self._add("turnover", changed)
        self.steps += 1

    def take_means(self) -> dict[str, float]:
        """The means of the epoch, whose sums start again."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def kept_share(self) -> Tensor | None:
        """Share of all steps in which each edge was kept."""
        return None if self.kept_steps is None else self.kept_steps / self.steps

    def state_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "steps": self.steps,
            "kept_steps": _copy(self.kept_steps),
            "previous": _copy(self.previous),
            "sums": {name: float(total) for name, total in self.sums.items()},
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was saved.

        Raises:
            NoisyLabelError: It holds half of a mask.
        """
        if (state["kept_steps"] is None) != (state["previous"] is None):
            raise NoisyLabelError("The checkpoint's masks are not whole: take another checkpoint.")
        self.steps = int(state["steps"])
        self.kept_steps, self.previous = _copy(state["kept_steps"]), _copy(state["previous"])
        self.sums = {name: float(total) for name, total in state["sums"].items()}
        self.counts = {name: int(state["counts"][name]) for name in self.sums}

    def _compare(self, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shares of kept and of changed edges."""
        assert self.kept_steps is not None
        assert self.previous is not None
        device = self.kept_steps.device if mask is None else mask.device
        previous = self.previous.to(device)
        self.previous = torch.ones_like(previous) if mask is None else mask.bool()
        self.kept_steps = self.kept_steps.to(device).add_(self.previous)
        return self.previous.double().mean(), (self.previous != previous).double().mean()

    def _add(self, name: str, share: Tensor | float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + share
        self.counts[name] = self.counts.get(name, 0) + 1


def _copy(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.to("cpu", copy=True)


def _trains(optimizer: Optimizer, layer: nn.Module) -> bool:
    parameters = {id(parameter) for parameter in layer.parameters()}
    return any(id(parameter) in parameters for group in optimizer.param_groups for parameter in group["params"])
