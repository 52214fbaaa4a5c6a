"""The processes of a run: how many, which one, and sums over them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_noisy.collectives import (
    communication_device,
    gather_rows,
    own_rows,
    process_count,
    process_rank,
    sum_over_processes,
)
from lightning_noisy.errors import NoisyLabelError
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


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_rows_stand_as_one_process_would_have_them(pool: Pool, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    whole = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    whole = whole > 0 if dtype == torch.bool else (10 * whole).to(dtype)
    assert torch.equal(gather_rows(whole), whole)
    assert torch.equal(own_rows(whole), whole)
    for rank, (gathered, own) in enumerate(pool.run(rows_of, whole)):
        assert gathered.dtype == dtype
        assert torch.equal(gathered, whole)
        assert torch.equal(own, whole[rank::WORLD_SIZE])


def rows_of(rank: int, whole: Tensor) -> tuple[Tensor, Tensor]:
    mine = whole[rank::WORLD_SIZE].clone()  # as a distributed sampler gives them
    gathered = gather_rows(mine.requires_grad_() if mine.dtype == torch.float32 else mine)
    assert not gathered.requires_grad
    return gathered, own_rows(gathered)


def unequal_rows(rank: int) -> str:
    with pytest.raises(NoisyLabelError) as error:
        gather_rows(torch.zeros(3 + rank))
    return str(error.value)


def test_processes_with_different_numbers_of_rows_are_refused_on_all(pool: Pool) -> None:
    assert all("[3, 4] samples of one batch" in message for message in pool.run(unequal_rows))
