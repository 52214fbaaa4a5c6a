"""What criteria are told beside logits and target."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.networks.classifier import Outputs
from lightning_noisy.state import RunState


def criterion_arguments(
    loss: nn.Module, outputs: Outputs, batch: TrainingBatch, epoch: int, run: RunState
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits in float32, the given labels, and exactly the keywords that a criterion ``requires``.

    Args:
        loss: The criterion.
        outputs: What its network says of the batch.
        batch: The batch.
        epoch: Number of the epoch, from 0.
        run: The run, which knows the number of epochs.

    Raises:
        NoisyLabelError: It requires what nobody offers.
    """
    requires: tuple[str, ...] = getattr(loss, "requires", ())
    owner = type(loss).__name__
    offers: dict[str, Callable[[], Any]] = {
        "index": lambda: batch.index,
        "features": lambda: widened(outputs.features),
        "views": lambda: tuple(map(widened, outputs.views)),
        "parameters": lambda: chain(outputs.network.parameters(), loss.parameters()),
        "epoch": lambda: epoch,
        "total_epochs": lambda: run.total_epochs(owner, getattr(loss, "total_epochs", None)),
    }
    if unknown := set(requires) - set(offers):
        raise NoisyLabelError(f"{owner} requires {unknown}, which this module does not offer.")
    return widened(outputs.logits), batch.target, {name: offers[name]() for name in requires}


def widened(values: Tensor) -> Tensor:
    """Half precision to float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
