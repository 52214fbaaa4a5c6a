"""The processes of a run, as torch.distributed knows them."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def process_count() -> int:
    """Number of processes of the default group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Rank in the default group, 0 without one."""
    return dist.get_rank() if process_count() > 1 else 0


def communication_device() -> torch.device:
    """The device whose tensors the default group exchanges: CUDA under NCCL, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on its own device: a collective where there are several."""
    if process_count() == 1:
        return values
    total = values.to(communication_device(), copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def gather_over_processes(value: Value) -> list[Value]:
    """What each process has, rank by rank, for values that can be pickled: a collective where there are several."""
    if process_count() == 1:
        return [value]
    gathered: list[Value] = [value] * process_count()
    dist.all_gather_object(gathered, value)
    return gathered
