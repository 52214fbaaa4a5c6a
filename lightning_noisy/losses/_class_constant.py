"""Constants of a loss that have an entry for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument


class ClassConstant:
    """A constant with a first dimension of K that is copied to where it is needed, once.

    It is not a buffer: state dicts stay empty, and no cast of a module takes its digits.

    Args:
        values: float64 tensor (K, ...) on the CPU.
        name: The argument it came from, for the message.
    """

    def __init__(self, values: Tensor, name: str) -> None:
        self.values = values
        self.name = name
        self._copy = values

    def like(self, logits: Tensor) -> Tensor:
        """The constant on the logits' device, in float32 (float64 for float64 logits).

        Raises:
            NoisyLabelError: It is made for another number of classes.
        """
        classes = self.values.shape[0]
        wanted = f"for K = {logits.shape[1]} classes, those of the logits"
        check_argument(logits.shape[1] == classes, self.name, wanted, f"one for {classes}")
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if (self._copy.dtype, self._copy.device) != (dtype, logits.device):
            self._copy = self.values.to(logits.device, dtype)
        return self._copy


def class_weights_constant(class_weights: Sequence[float] | None) -> ClassConstant | None:
    """The argument ``class_weights`` of a loss as a constant.

    Raises:
        NoisyLabelError: One is negative or not finite.
    """
    if class_weights is None:
        return None
    valid = all(0.0 <= weight < math.inf for weight in class_weights)
    check_argument(valid, "class_weights", "finite floats >= 0, or None", class_weights)
    return ClassConstant(torch.tensor(class_weights, dtype=torch.float64), "class_weights")
