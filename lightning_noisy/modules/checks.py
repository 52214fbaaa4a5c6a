"""What modules refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import finds_unused_parameters
from lightning_noisy.trainer_access import from_datamodule


def check_same_classes(trainer: Trainer, num_classes: int) -> None:
    """Refuse data of another number of classes.

    Raises:
        NoisyLabelError: The data module has another number; where it was taken from the labels, the largest is named.
    """
    classes, largest = (from_datamodule(trainer, name) for name in ("num_classes", "largest_label"))
    if classes is not None and classes != num_classes:
        why = "" if largest is None else f" ({largest})"
        raise NoisyLabelError(
            f"The data module has {classes} classes{why}, but the module was made with num_classes={num_classes}."
        )


def check_finds_unused(trainer: Trainer, owner: str) -> None:
    """Refuse a strategy of several processes that waits for the gradients of a network that does not learn in a step.

    Args:
        trainer: The Trainer.
        owner: Whose networks learn in turn.

    Raises:
        NoisyLabelError: DDP without ``find_unused_parameters``.
    """
    if trainer.world_size > 1 and not finds_unused_parameters(trainer):
        raise NoisyLabelError(
            f"{owner} trains its networks in turn, so that one of them has no gradient: use "
            "strategy='ddp_find_unused_parameters_true'."
        )


def check_views(images: Any, wanted: Sequence[str], owner: str) -> None:
    """Refuse a batch of another number of views.

    Args:
        images: Those of a batch: a list of views, or one tensor.
        wanted: Which views are needed, as `views` of a data module names them.
        owner: Who needs them.

    Raises:
        NoisyLabelError: There are fewer, or more.
    """
    views = len(images) if isinstance(images, (list, tuple)) else 1
    if views != len(wanted):
        kinds = f"{len(wanted)} views" if len(wanted) > 1 else "one view"
        raise NoisyLabelError(
            f"{owner} trains on {kinds} of each image, but the batch has {views}: give the data module "
            f"`views={list(wanted)}`."
        )


def not_a_scalar(loss: Tensor) -> NoisyLabelError:
    """What is said of a training loss of several values."""
    return NoisyLabelError(
        f"Expected the training loss to be a scalar, but got shape {tuple(loss.shape)}: give the criterion "
        "`reduction='mean'`, or return the mean from `step`."
    )


def not_finite(where: str, index: Tensor) -> str:
    """What is said of a training loss that is not finite.

    Args:
        where: Epoch and batch.
        index: int64 (B,), the samples of the batch.
    """
    return (
        f"The training loss is not finite in {where}, samples {index.tolist()[:8]}: lower the learning rate, clip "
        "gradients, or look at these inputs."
    )
