"""Losses with memory, draws or statistics of a batch: two processes against one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lightning_noisy.callbacks import JointOptimizationLabels, MixUp
from lightning_noisy.losses import (
    DeepAbstainingClassifier,
    DeterminantMutualInformation,
    JointOptimization,
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
    "joint": lambda: JointOptimization(),
    "pencil": lambda: PencilLoss(label_lr=40.0, warmup_epochs=1, fixed_from_epoch=2, scale=2.0),
    "abstaining": lambda: DeepAbstainingClassifier(1),
}
TABLES = {"sat": 1, "truncated": 1, "nlnl": 1, "pencil": 1}


def case_of(make: Callable[[], nn.Module]) -> Callable[[bool, int], tuple[nn.Module, list[Callback]]]:
    return lambda foreign, samples: (make(), [])


@pytest.mark.parametrize("name", ["peer", "determinant", "joint"])
def test_a_loss_asks_no_other_process_outside_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process alone may validate, and processes may validate batches of different sizes."""
    context = {"index": torch.arange(8), "epoch": 0} if name == "peer" else {}
    batch = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    expected = LOSSES[name]()(*batch, **context)
    for where in ("_batch.process_count", "determinant_mutual_information.process_count"):
        monkeypatch.setattr(f"lightning_noisy.losses.{where}", lambda: WORLD_SIZE)
    monkeypatch.setattr("lightning_noisy.losses.peer.process_rank", lambda: 1)
    assert LOSSES[name]().eval()(*batch, **context).equal(expected)


CALLBACKS: dict[str, Callable[[], Callback]] = {
    "optimization-soft": lambda: JointOptimizationLabels(1, window=2),
    "optimization-hard": lambda: JointOptimizationLabels(1, window=2, labels="hard"),
}
test_ddp.CASES |= {name: lambda foreign, n, make=make: (None, [make()]) for name, make in CALLBACKS.items()}
test_ddp.CASES["mix-up"] = lambda foreign, n: (None, [MixUp(1.0, seed=5)])
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


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_two_processes_equal_one_with_labels_that_change(pool: Pool, name: str, foreign: bool) -> None:
    run = Fit(name, foreign)
    running = pool.start(fit, run)
    alone = fit(0, run, processes=1)
    ranks = running()
    same_run(ranks[1], ranks[0])
    same_run(ranks[0], alone, **CLOSE)
    for what in ("index", "logits", "target"):
        same(by_step(ranks, what), [call[what] for call in alone["calls"]], **CLOSE)


def test_mix_up_shares_lambda_but_not_partners(pool: Pool) -> None:
    first, second = pool.run(fit, Fit("mix-up", foreign=True))
    same_run(second, first)
    for here, there in zip(first["calls"], second["calls"], strict=True):
        shares = [call["target"].double().unique() for call in (here, there)]
        mixed = [values[(values > 0) & (values < 1)] for values in shares]
        if all(map(len, mixed)):
            torch.testing.assert_close(mixed[0].max(), mixed[1].max())
        assert not here["index"].equal(there["index"])


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
