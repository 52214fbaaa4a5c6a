"""Samples that stay on the accelerator: a loader hands out their keys, and they are made where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args
from weakref import WeakValueDictionary

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError, check_argument

DataOn = Literal["auto", "device", "loader"]
"""Where samples in memory are gathered and transformed."""

MOST_BYTES = 2 * 1024**3
"""Of samples that move to an accelerator unasked."""

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


class DeviceCopies:
    """Copies of a tensor on other devices: each is made once, for all that hold the same tensor.

    Args:
        samples: The tensor.
    """

    _all: ClassVar[WeakValueDictionary[int, DeviceCopies]] = WeakValueDictionary()

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples
        self._copies: dict[torch.device, Tensor] = {}

    @classmethod
    def of(cls, samples: Tensor) -> DeviceCopies:
        """The one of this tensor."""
        found = cls._all.get(id(samples))
        if found is None or found.samples is not samples:
            found = cls._all[id(samples)] = cls(samples)
        return found

    def on(self, device: torch.device) -> Tensor:
        """The tensor on a device."""
        if device == self.samples.device:
            return self.samples
        if device not in self._copies:
            self._copies[device] = self.samples.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        """Workers and copies bring the samples to a device themselves."""
        return {"samples": self.samples, "_copies": {}}


class PendingImages:
    """The samples of a batch before they are made: :meth:`to` makes them, on the device that the batch goes to.

    It travels like a tensor, by Lightning's transfer of a batch or by ``images.to(device)`` in a loop of one's own.

    Args:
        make: From a device to the samples (B, ...) on it, or to a list of views.
        count: B.
    """

    def __init__(self, make: Callable[[torch.device], Any], count: int) -> None:
        self._make = make
        self._count = count

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        """The samples on a device."""
        return self._make(torch.device(device))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: Any) -> Any:
        made = self.to("cpu")
        return [view[position] for view in made] if isinstance(made, list) else made[position]


def check_data_on(data_on: str) -> None:
    """Refuse an unknown place.

    Raises:
        NoisyLabelError: It is none of those that there are.
    """
    check_argument(data_on in get_args(DataOn), "data_on", "'auto', 'device' or 'loader'", data_on)


def stays_on_device(data_on: DataOn, samples: Tensor, by_batch: bool, trainer: Trainer | None) -> bool:
    """Whether samples in memory are made on the device of the run.

    Args:
        data_on: What was asked for; "auto" takes the device where it is a GPU, all transforms are of batches, and the
            samples have at most ``MOST_BYTES``.
        samples: All of them, (N, ...).
        by_batch: Whether all transforms are of batches.
        trainer: The Trainer, if there is one.

    Raises:
        NoisyLabelError: "device" under a precision that converts batches before they are there.
    """
    if data_on == "loader":
        return False
    converts = trainer is not None and trainer.precision not in _PRECISIONS
    early = trainer is not None and _looks_before(trainer)
    if data_on == "device":
        if early:
            raise NoisyLabelError(
                "data_on='device' makes samples after `on_before_batch_transfer`, which this run overrides: use "
                "data_on='loader', or `on_after_batch_transfer`."
            )
        if trainer is not None and converts:
            raise NoisyLabelError(
                f"data_on='device' makes samples after precision={trainer.precision!r} has converted the batch: use "
                "data_on='loader', or a mixed precision."
            )
        return True
    on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
    return on_gpu and by_batch and not converts and not early and samples.nbytes <= MOST_BYTES


def _looks_before(trainer: Trainer) -> bool:
    """Whether somebody's hook gets batches before they move."""
    owners = (getattr(trainer, "lightning_module", None), getattr(trainer, "datamodule", None))
    return any(one is not None and is_overridden("on_before_batch_transfer", one) for one in owners)
