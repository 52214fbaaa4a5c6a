"""The processes of a run: how many, which one, and sums over them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.collectives import communication_device, process_count, process_rank, sum_over_processes
from tests.distributed import WORLD_SIZE, Pool


def told(rank: int) -> tuple[int, int, str, Tensor, Tensor]:
    values = torch.tensor([1.0, 10.0], dtype=torch.float64) * (rank + 1)
    total = sum_over_processes(values)
    return process_count(), process_rank(), communication_device().type, values, total


def test_alone() -> None:
    values = torch.ones(2)
    assert (process_count(), process_rank()) == (1, 0)
    assert torch.equal(sum_over_processes(values), torch.ones(2))


def test_in_a_group(pool: Pool) -> None:
    for rank, (count, known_rank, device, values, total) in enumerate(pool.run(told)):
        assert (count, known_rank, device) == (WORLD_SIZE, rank, "cpu")
        assert values.tolist() == [rank + 1.0, 10.0 * (rank + 1)]
        assert total.tolist() == [3.0, 30.0]
        assert total.dtype == torch.float64
