"""What losses of ours get from the place where they are called, though the project does not pass it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.state import RunState

_KNOWN = ("index", "epoch", "total_epochs", "parameters")


def missing_context(criterion: nn.Module | None, given: Mapping[str, Any], features: bool) -> list[str]:
    """What a loss requires, a call does not pass and a pipeline knows.

    Args:
        criterion: The criterion.
        given: Keywords of the call.
        features: Whether somebody notes what goes into the classifier.
    """
    requires = criterion.requires if isinstance(criterion, NoisyLabelLoss) else ()
    known = (*_KNOWN, "features") if features else _KNOWN
    return [name for name in known if name in requires and name not in given]


def offered(run: RunState, loss: nn.Module | None, root: nn.Module, epoch: int) -> dict[str, Callable[[], Any]]:
    """What is known of a run beside the batch, by the names of the keywords.

    Args:
        run: The run, which knows the number of epochs.
        loss: The loss.
        root: The module that is trained, whose parameters are meant.
        epoch: Number of the epoch, from 0.
    """
    return {
        "epoch": lambda: epoch,
        "total_epochs": lambda: run.total_epochs(type(loss).__name__, getattr(loss, "total_epochs", None)),
        "parameters": root.parameters,
    }
