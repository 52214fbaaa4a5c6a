"""A loss for each stage of training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.losses._composite import CompositeLoss, check_part
from lightning_noisy.losses._store import Store
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.storage import Storage


class StagedLoss(CompositeLoss):
    r"""A loss for each stage of training, such as NL, then SelNL, then SelPL.

    .. math:: \mathcal{L} = \mathcal{L}_s \quad\text{in epochs } e_s \le e < e_{s+1}, \qquad e_0 = 0

    ``forward(logits, target, epoch=epoch, **context)`` takes what the losses take: logits (B, K), int64 labels (B,),
    soft targets (B, K) where all of them take them, and every keyword that one of them requires. A loss may be one of
    this package, with parameters and memory of its own, or a torch criterion such as ``nn.CrossEntropyLoss()``.

    Stores of one name are one store: a stage goes on with what an earlier one has noted under that name, as SelNL and
    SelPL do with the ``"label_probability"`` of NL.

    Under DDP the parameters of a stage that is not on, such as NAL's attention branch, get no gradient: use
    ``strategy="ddp_find_unused_parameters_true"`` there.

    Args:
        stages: The losses, of any reduction.
        starts: First epoch of each, from 0: as many, ascending, the first one 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; ``"none"`` where all losses have values of samples.

    Raises:
        NoisyLabelError: Starts that do not fit, a loss without losses of samples or that needs outputs of its own,
            stores of one name and different shapes, or ``forward`` gets a target or keywords that the losses do not
            take.

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
            check_part("stages", loss)
        self.stages = nn.ModuleList(stages)
        self.starts = list(starts)
        self.check_sample_values()

    @override
    def store_shapes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """The stores of all losses.

        Args:
            num_classes: K.

        Returns:
            Their shapes.

        Raises:
            NoisyLabelError: Two losses have stores of one name and different shapes.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for loss in self.stages:
            of_loss = loss.store_shapes(num_classes) if isinstance(loss, NoisyLabelLoss) else {}
            for name, shape in of_loss.items():
                if shapes.setdefault(name, shape) != shape:
                    raise NoisyLabelError(
                        f"The stages of StagedLoss share the store `{name}`, but {type(loss).__name__} needs rows of "
                        f"shape {shape} and an earlier stage {shapes[name]}: give both the same arguments (`window`)."
                    )
        return shapes

    @override
    def storage_of(self, name: str) -> Storage:
        """How a store keeps its rows: as the stages that have it say.

        Args:
            name: Of the store, as in :meth:`store_shapes`.

        Raises:
            NoisyLabelError: They say different things.
        """
        having = [loss for loss in self.stages if isinstance(loss, NoisyLabelLoss) and name in loss.store_shapes(2)]
        storages = [loss.storage_of(name) for loss in having]
        if any(storage != storages[0] for storage in storages):
            raise NoisyLabelError(
                f"The stages of StagedLoss share the store `{name}`, but keep it in {storages}: give all the same "
                "`storage`."
            )
        return storages[0]

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"starts": self.starts[-1]}

    @override
    def losses(self, logits: Tensor, target: Tensor, epoch: int, **context: Any) -> Tensor:
        stage = sum(start <= epoch for start in self.starts) - 1
        return self.evaluate(f"stages.{stage}", logits, target, {"epoch": epoch, **context})

    @override
    def _tables_of(self, part: str) -> dict[str, Store]:
        return self.stores
