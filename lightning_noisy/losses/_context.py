"""Keywords that a loss cannot do without."""

from __future__ import annotations

from typing import TypeVar

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.base import NoisyLabelLoss

_Value = TypeVar("_Value")

_MEANINGS = {
    "index": "the positions (B,) of the samples in the training set",
    "epoch": "the number of the epoch, from 0",
    "total_epochs": "the number of epochs",
}


def required(loss: NoisyLabelLoss, name: str, value: _Value | None) -> _Value:
    """A keyword's value, if there is one.

    Args:
        loss: The loss, named in the message.
        name: The keyword.
        value: What came.

    Raises:
        NoisyLabelError: None came.
    """
    if value is None:
        raise NoisyLabelError(
            f"{type(loss).__name__} expects `{name}`, {_MEANINGS[name]}, but got None: pass `{name}=...`, or use it in "
            "a NoisyLabelModule."
        )
    return value
