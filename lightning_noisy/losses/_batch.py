"""Statistics of a batch that is spread over processes: two of B / 2 samples give what one of B gives."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.collectives import communication_device, gather_tensors, process_count, sum_over_processes


def batch_mean(values: Tensor) -> Tensor:
    """The mean over the samples of all processes, differentiable: a collective where there are several.

    The gradient is the one that DDP, which averages gradients over processes, turns into that of a single process. For
    this the losses of all processes have to depend on the mean in the same way.

    Args:
        values: Floating-point tensor (B, ...), with the same B on all processes.

    Returns:
        Tensor (...), equal on all processes.
    """
    mean = values.mean(dim=0)
    if process_count() == 1:
        return mean
    shared = sum_over_processes(mean.detach()) / process_count()
    return shared + (mean - mean.detach())


def whole_batch(values: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, without gradient: a collective where there are several.

    Args:
        values: Tensor (B, ...), with the same B on all processes.

    Returns:
        Tensor (W B, ...).
    """
    if process_count() == 1:
        return values.detach()
    return torch.cat(gather_tensors(values.detach().to(communication_device()))).to(values.device)
