"""Losses with memory, draws or statistics of a batch: two processes against one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    DeterminantMutualInformation,
    JointOptimizationLoss,
    NegativeLearning,
    PeerLoss,
    PencilLoss,
    SelectiveNegativeLearning,
    SelectivePositiveLearning,
    SelfAdaptiveTraining,
    StagedLoss,
    TruncatedGeneralizedCrossEntropy,
)
from lightning_noisy.losses._batch import batch_mean, whole_batch
from tests import test_ddp
from tests.distributed import WORLD_SIZE, Pool
from tests.test_ddp import CLOSE, EPOCHS, PADDED, PADDED_BATCH, SAMPLES, STEPS, Fit, by_step, same, same_run

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "sat": lambda: SelfAdaptiveTraining(warmup_epochs=1, momentum=0.7),
    "truncated": lambda: TruncatedGeneralizedCrossEntropy(0.7, 0.3, warmup_epochs=1, every_n_epochs=2),
    "negative": lambda: NegativeLearning(3, [1.0, 2.0, 0.5, 1.0, 1.5], seed=5),
    "nlnl": lambda: StagedLoss(
        [
            NegativeLearning(3, window=2, seed=5),
            SelectiveNegativeLearning(3, window=2, seed=5),
            SelectivePositiveLearning(0.25, window=2),
        ],
        [0, 1, 2],
    ),
    "peer": lambda: PeerLoss(0.5, seed=5, eps=0.05),
    "determinant": lambda: DeterminantMutualInformation(),
    "joint": lambda: JointOptimizationLoss(),
    "pencil": lambda: PencilLoss(label_lr=40.0, warmup_epochs=1, fixed_from_epoch=2, scale=2.0),
    "abstaining": lambda: DeepAbstainingClassifier(1),
}
TABLES = {"sat": 1, "truncated": 1, "nlnl": 1, "pencil": 1}


def case_of(make: Callable[[], nn.Module]) -> Callable[[bool, int], tuple[nn.Module, list[Callback]]]:
    return lambda foreign, samples: (make(), [])


test_ddp.CASES |= {f"loss-{name}": case_of(make) for name, make in LOSSES.items()}


def fit(rank: int, run: Fit, processes: int = WORLD_SIZE) -> dict[str, Any]:
    """As in the other tests; that it is of this module brings the cases above to the processes."""
    return test_ddp.fit(rank, run, processes)


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_equal_one(pool: Pool, name: str) -> None:
    run = Fit(f"loss-{name}", foreign=False)
    running = pool.start(fit, run)
    alone = fit(0, run, processes=1)
    ranks = running()
    same_run(ranks[1], ranks[0])
    same_run(ranks[0], alone, **CLOSE)
    same(ranks[0]["figures"], alone["figures"], **CLOSE)
    assert len(alone["calls"]) == EPOCHS * STEPS
    assert len(alone["tables"]) == TABLES.get(name, 0)
    for table in alone["tables"].values():
        assert len(table) == SAMPLES
        assert table.any()
    for what in ("index", "logits"):
        same(by_step(ranks, what), [call[what] for call in alone["calls"]], **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_leaves_ranks_equal(pool: Pool, name: str) -> None:
    ranks = pool.run(fit, Fit(f"loss-{name}", foreign=False, samples=PADDED, batch=2 * PADDED_BATCH))
    same_run(ranks[1], ranks[0])
    assert all(value.isfinite().all() for value in ranks[0]["weights"].values())


def statistics(rank: int, rows: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of all rows, its gradient by those of this rank through a function of the mean, and all rows."""
    mine = rows[rank].clone().requires_grad_()
    mean = batch_mean(mine)
    (gradient,) = torch.autograd.grad((mean**3).sum(), mine)
    return mean.detach(), gradient, whole_batch(rows[rank].long())


def test_statistics_of_a_batch(pool: Pool) -> None:
    rows = [4 * torch.randn(3, 2, generator=torch.Generator().manual_seed(rank)).double() for rank in range(WORLD_SIZE)]
    together = torch.cat(rows).requires_grad_()
    mean = together.mean(0)
    (gradient,) = torch.autograd.grad((mean**3).sum(), together)
    results = pool.run(statistics, rows)
    for found, _, everything in results:
        torch.testing.assert_close(found, mean.detach())
        assert torch.equal(everything, together.detach().long())
    # DDP divides by the number of processes.
    torch.testing.assert_close(torch.cat([local for _, local, _ in results]) / WORLD_SIZE, gradient)
