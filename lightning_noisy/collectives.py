"""The processes of a run, and all that they exchange: nothing else here calls a collective of torch.distributed."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

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


def largest_over_processes(value: int) -> int:
    """The largest number that a process has: a collective where there are several."""
    if process_count() == 1:
        return value
    largest = torch.tensor(value, device=communication_device())
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def gather_over_processes(value: Value) -> list[Value]:
    """What each process has, rank by rank, for values that can be pickled: a collective where there are several."""
    if process_count() == 1:
        return [value]
    gathered: list[Value] = [value] * process_count()
    dist.all_gather_object(gathered, value)
    return gathered


def gather_tensors(tensor: Tensor) -> list[Tensor]:
    """A tensor of each process, rank by rank: a collective.

    Args:
        tensor: Of the same shape and type in all processes, on the :func:`communication_device`. It travels as bytes,
            since groups do not take every type.
    """
    wire = tensor.contiguous().flatten().view(torch.uint8)
    gathered = [torch.empty_like(wire) for _ in range(process_count())]
    dist.all_gather(gathered, wire)
    return [received.view(tensor.dtype).view(tensor.shape) for received in gathered]


def send_to_first(tensor: Tensor) -> None:
    """Send a tensor to process 0, which calls :func:`receive_from`."""
    dist.send(tensor.to(communication_device()).contiguous().view(torch.uint8), dst=0)


def receive_from(sender: int, like: Tensor) -> Tensor:
    """What a process sends with :func:`send_to_first`: a tensor of the same shape and type as ``like``."""
    received = torch.empty_like(like, device=communication_device(), memory_format=torch.contiguous_format)
    dist.recv(received.view(torch.uint8), src=sender)
    return received


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in the order in which one process would have them: a collective.

    A distributed sampler gives process r of W every W-th sample, so row i of process r stands at i W + r.

    Args:
        rows: (B, ...), of the same B in all processes.

    Returns:
        (W B, ...), without a gradient.

    Raises:
        NoisyLabelError: Processes have different numbers of rows.
    """
    if process_count() == 1:
        return rows.detach()
    own = rows.detach().to(communication_device()).contiguous()
    numbers = torch.cat(gather_tensors(own.new_tensor([len(own)], dtype=torch.int64))).tolist()
    if len(set(numbers)) > 1:
        raise NoisyLabelError(
            f"The processes have {numbers} samples of one batch, but selecting within it needs as many in each: use a "
            "distributed sampler that fills up, as EpochSampler does."
        )
    return torch.stack(gather_tensors(own), dim=1).flatten(0, 1).to(rows.device)


def own_rows(rows: Tensor) -> Tensor:
    """This process's part (B, ...) of what :func:`gather_rows` gives (W B, ...)."""
    return rows[process_rank() :: process_count()]
