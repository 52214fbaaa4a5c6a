"""What losses of ours get from the place where they are called, though the project does not pass it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lightning_noisy.data.batch import Batch
from lightning_noisy.losses import NoisyLabelLoss
from lightning_noisy.state import RunState

_KNOWN = ("index", "epoch", "total_epochs", "parameters", "features")


def missing_context(criterion: nn.Module | None, given: Mapping[str, Any]) -> list[str]:
    """What a loss requires, a call does not pass and a pipeline knows.

    Args:
        criterion: The criterion.
        given: Keywords of the call.
    """
    requires = criterion.requires if isinstance(criterion, NoisyLabelLoss) else ()
    return [name for name in _KNOWN if name in requires and name not in given]


def offered(
    name: str,
    run: RunState,
    loss: nn.Module | None,
    root: nn.Module,
    batch: Batch,
    index: Callable[[], Tensor],
    features: Callable[[], Tensor],
) -> Any:
    """One of them.

    Args:
        name: Which one.
        run: The run, which knows the number of epochs.
        loss: The loss.
        root: The module that is trained, whose parameters are meant.
        batch: The batch.
        index: Gives the samples of the call.
        features: Gives what went into the classifier.
    """
    offers: dict[str, Callable[[], Any]] = {
        "index": index,
        "epoch": lambda: batch.epoch,
        "total_epochs": lambda: run.total_epochs(type(loss).__name__, getattr(loss, "total_epochs", None)),
        "parameters": root.parameters,
        "features": features,
    }
    return offers[name]()
