"""What modules refuse."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
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


def check_scalar(loss: Tensor) -> None:
    """Refuse a training loss of several values.

    Raises:
        NoisyLabelError: It has a dimension.
    """
    if loss.ndim:
        raise NoisyLabelError(
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
