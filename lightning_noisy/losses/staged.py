"""A loss for each stage of training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.losses._context import required
from lightning_noisy.losses._target import check_target
from lightning_noisy.losses.base import NoisyLabelLoss


class StagedLoss(NoisyLabelLoss):
    r"""A loss for each stage of training, such as NL, then SelNL, then SelPL.

    .. math:: \mathcal{L} = \mathcal{L}_s \quad\text{in epochs } e_s \le e < e_{s+1}, \qquad e_0 = 0

    ``forward(logits, target, epoch=epoch, **context)`` takes what the losses take: logits (B, K), int64 labels (B,),
    soft targets (B, K) where all of them take them, and every keyword that one of them requires. A loss may be one of
    this package, with parameters and memory of its own, or a torch criterion such as ``nn.CrossEntropyLoss()``.

    Tables of one name are one table: a stage goes on with what an earlier one has noted under that name, as SelNL and
    SelPL do with the ``"label_probability"`` of NL.

    Under DDP the parameters of a stage that is not on, such as NAL's attention branch, get no gradient: use
    ``strategy="ddp_find_unused_parameters_true"`` there.

    Args:
        stages: The losses. Their reduction has to be ``reduction``.
        starts: First epoch of each, from 0: as many, ascending, the first one 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: how all losses reduce.

    Raises:
        NoisyLabelError: Starts that do not fit, a loss that reduces otherwise or needs outputs of its own, tables of
            one name and different shapes, or ``forward`` gets a target or keywords that the losses do not take.

    Example:
        >>> import torch
        >>> from lightning_noisy.losses import MeanAbsoluteError
        >>> loss = StagedLoss([torch.nn.CrossEntropyLoss(), MeanAbsoluteError()], starts=[0, 5])
        >>> loss(torch.zeros(8, 4), torch.arange(8) % 4, epoch=5)
        tensor(0.7500)
    """

    def __init__(self, stages: list[nn.Module], starts: list[int], reduction: str = "mean") -> None:
        super().__init__(reduction)
        ascending = all(early < late for early, late in pairwise(starts))
        fitting = len(starts) == len(stages) > 0 and starts[0] == 0 and ascending
        check_argument(fitting, "starts", f"{len(stages)} ascending epochs, the first one 0", starts)
        for loss in stages:
            own = getattr(loss, "reduction", None)
            if own != reduction:
                raise NoisyLabelError(
                    f"Expected argument `stages` to be losses with reduction={reduction!r}, but got "
                    f"{type(loss).__name__} with reduction={own!r}: give all the same."
                )
            extra = getattr(loss, "extra_outputs", 0)
            check_argument(extra == 0, "stages", "losses of K outputs", f"{type(loss).__name__} with {extra} more")
        self.stages = nn.ModuleList(stages)
        self.starts = list(starts)

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The epoch, and the keywords that one of the losses requires, each once."""
        names = (name for loss in self.stages for name in getattr(loss, "requires", ()))
        return tuple(dict.fromkeys(("epoch", *names)))

    @property
    def soft_targets(self) -> bool:  # type: ignore[override]
        """Whether all losses take soft targets; a torch criterion is taken to."""
        return all(getattr(loss, "soft_targets", True) for loss in self.stages)

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make the parts of all losses whose size depends on the network.

        Args:
            num_features: Width D of the network's features.
            num_classes: K.
        """
        for loss in self._own():
            loss.bind(num_features, num_classes)

    def memory_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The tables of all losses.

        Args:
            num_classes: K.

        Returns:
            Their shapes.

        Raises:
            NoisyLabelError: Two losses have tables of one name and different shapes.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for loss in self._own():
            for name, shape in loss.memory_shapes(num_classes).items():
                if shapes.setdefault(name, shape) != shape:
                    raise NoisyLabelError(
                        f"The stages of StagedLoss share the table `{name}`, but {type(loss).__name__} needs rows of "
                        f"shape {shape} and an earlier stage {shapes[name]}: give both the same arguments (`window`)."
                    )
        return shapes

    def forward(self, logits: Tensor, target: Tensor, *, epoch: int | None = None, **context: Any) -> Tensor:
        """The loss of a batch.

        Args:
            logits: Floating-point tensor (B, K).
            target: int64 labels (B,), or floating-point targets (B, K) where all losses take them.
            epoch: Number of the epoch, from 0.
            context: The other keywords that the losses require.

        Returns:
            Scalar, or (B,) without reduction.

        Raises:
            NoisyLabelError: No epoch, a keyword that no loss requires, a target of another dtype or shape, or what the
                stage's loss refuses.
        """
        context["epoch"] = epoch = required(self, "epoch", epoch)
        check_argument(set(context) <= set(self.requires), "context", f"keywords out of {self.requires}", [*context])
        check_target(self, logits, target)
        loss = self.stages[sum(start <= epoch for start in self.starts) - 1]
        if isinstance(loss, NoisyLabelLoss):
            loss.memory |= self.memory
        passed = {name: context[name] for name in getattr(loss, "requires", ()) if name in context}
        losses: Tensor = loss(logits, target, **passed)
        return losses

    def _own(self) -> list[NoisyLabelLoss]:
        return [loss for loss in self.stages if isinstance(loss, NoisyLabelLoss)]
