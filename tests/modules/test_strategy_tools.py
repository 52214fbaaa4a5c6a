"""What strategies are made of: means over selections, notes, members, steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules import CoTeaching, MultiNetworkModule, NoisyLabelModule
from tests.distributed import WORLD_SIZE, Pool
from tests.foreign import make_trainer
from tests.modules.linear import Features, fit, make_linear, make_samples
from tests.small import MemoryLogger, SmallDataModule, make_module

CASES = {
    "unequal": [1, 1, 1, 0, 1, 0],
    "one process alone": [0, 1, 0, 1, 0, 0],
    "weights": [0.5, 0.0, 2.0, 0.25, 0.0, 0.0],
    "nothing": [0] * 6,
}
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASS_WEIGHTS = torch.tensor([2.0, 0.5, 1.0, 3.0, 1.0, 0.25], dtype=torch.float64)


def mean_on(rank: int, chosen: Tensor, weighted: bool) -> tuple[float, Tensor, Tensor]:
    """A selected mean of squares and its gradient, of this process's rows."""
    module = make_linear("CoTeaching")
    mine = slice(rank, None, WORLD_SIZE)
    theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
    values = (X[mine] @ theta).square()
    losses = SampleLosses(values * CLASS_WEIGHTS[mine], CLASS_WEIGHTS[mine]) if weighted else values
    mean = module.selected_mean(losses, chosen[mine])
    mean.backward()
    everywhere = module.gather_batch(chosen[mine])
    return mean.item(), theta.grad, module.local_rows(everywhere)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_what_all_processes_chose(pool: Pool, case: str, weighted: bool) -> None:
    """DDP takes the mean of gradients over processes: it is that of the mean over the whole selection."""
    raw = CASES[case]
    chosen = torch.tensor(raw, dtype=torch.float64) if case == "weights" else torch.tensor(raw) > 0
    share = np.array(raw, dtype=float)
    inner = X.numpy().sum(axis=1)
    weights = CLASS_WEIGHTS.numpy() if weighted else np.ones(6)
    count = (share * weights).sum() or 1.0
    expected = (share * weights * inner**2).sum() / count
    gradient = (share * weights * 2 * inner) @ X.numpy() / count
    ranks = pool.run(mean_on, chosen, weighted)
    assert np.mean([mean for mean, _, _ in ranks]) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(np.mean([grad.numpy() for _, grad, _ in ranks], axis=0), gradient, atol=1e-12)
    for rank, (_, _, here) in enumerate(ranks):
        assert torch.equal(here, chosen[rank::WORLD_SIZE])


def test_what_is_not_chosen_may_be_infinite() -> None:
    module = make_linear("CoTeaching")
    logits = torch.tensor([[3e38, -3e38], [1.0, 2.0]], requires_grad=True)
    losses = F.cross_entropy(logits, torch.tensor([1, 0]), reduction="none")
    assert losses[0].isinf()
    for chosen, expected in (([False, False], 0.0), ([False, True], losses[1].item())):
        logits.grad = None
        mean = module.selected_mean(losses, torch.tensor(chosen))
        assert mean.requires_grad
        assert mean.item() == pytest.approx(expected)
        mean.backward(retain_graph=True)
        assert torch.equal(logits.grad[0], torch.zeros(2))
        assert logits.grad.isfinite().all()


def easiest_on(rank: int, losses: Tensor, among: Tensor) -> list[Tensor]:
    module: Any = make_linear("CoTeaching", forget_rate=0.3, ramp_epochs=1)
    module.ramp_epochs = 0
    mine = slice(rank, None, WORLD_SIZE)
    return [module.easiest(losses[mine]), module.easiest(losses[mine], among=among[mine])]


def test_small_losses_are_those_of_all_processes(pool: Pool) -> None:
    """Ten samples, of which 7 are kept, and five of which 3 are; all easy ones lie in the first process."""
    losses = torch.tensor([1.0, 9, 2, 8, 3, 7, 4, 6, 5, 10])
    among = torch.tensor([True, True, False, True, False, True, False, True, False, False])
    for kept in (pool.run(easiest_on, losses, among),):
        for rank, (easy, chosen) in enumerate(kept):
            assert easy.tolist() == (losses[rank::WORLD_SIZE] <= 7).tolist()
            assert chosen.tolist() == (among & (losses <= 7))[rank::WORLD_SIZE].tolist()


class Noting(NoisyLabelModule):
    def step(self, batch: Any) -> Tensor:
        scalar = batch.index.double().mean()
        chosen = batch.index % 3 == 0
        self.note(**{"my/scalar": scalar, "my/rows": batch.index[:2].double(), "plain": 2.0})
        self.note_selection(chosen, batch)
        self.note_selection(torch.zeros_like(chosen), batch, "none")
        return super().step(batch)


def test_notes_are_means_over_the_epoch(tmp_path: Path) -> None:
    module = make_module(nn.CrossEntropyLoss())
    module.__class__ = Noting
    logger, data = MemoryLogger(), SmallDataModule(seed=0, num_samples=45, val_fraction=0.0)  # the last batch has 5
    trainer = make_trainer(tmp_path, max_epochs=2, logger=logger)
    trainer.fit(module, datamodule=data)
    index = np.arange(45)
    clean = (data.noisy_targets == data.clean_targets).numpy()
    chosen = index % 3 == 0
    for epoch in range(2):
        seen = module.history[epoch]
        assert seen["my/scalar"] == pytest.approx(22.0)  # by samples, not by batches
        assert seen["train/plain"] == 2
        assert seen["selection/size"] == pytest.approx(15 / 45)
        assert seen["selection/precision"] == pytest.approx((chosen & clean).sum() / chosen.sum())
        assert seen["selection/recall"] == pytest.approx((chosen & clean).sum() / clean.sum())
        assert seen["selection/none/size"] == seen["selection/none/recall"] == 0
        assert "selection/none/precision" not in seen
        assert not {name for name in seen if name.endswith(("/right", "/clean"))}
    data.sampler.set_epoch(1)
    visited = np.array(list(data.sampler))
    first_two = np.concatenate([visited[start : start + 2] for start in range(0, 45, 8)])
    assert module.history[1]["my/rows"] == pytest.approx(first_two.mean())
    assert logger.seen["selection/precision"][1] == pytest.approx(module.history[1]["selection/precision"])


def test_without_known_clean_labels_the_size_alone_is_logged(tmp_path: Path) -> None:
    x, y = make_samples(6)
    history = fit(tmp_path, make_linear("CoTeaching"), x, y, 3)
    assert {name for name in history[0] if name.startswith("selection")} == {
        "selection/keep_rate",
        "selection/network_0/size",
        "selection/network_1/size",
    }


def test_accuracies_of_members_are_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(50, 4), torch.randint(3, (50,))
    module: Any = make_linear("CoTeaching").float()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=20)
    (seen,) = make_trainer(tmp_path).test(module, loader, verbose=False)
    p = [network(x).softmax(dim=1) for network in module.networks]
    for name, probabilities in (("", (p[0] + p[1]) / 2), ("network_0/", p[0]), ("network_1/", p[1])):
        assert seen[f"test/{name}acc"] == pytest.approx((probabilities.argmax(dim=1) == y).float().mean().item())
        expected = -probabilities[torch.arange(50), y].log().mean().item()
        assert seen[f"test/{name}loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [1, 2, 3, 4, 5]), (2, [1, 2, 3])])
def test_after_step_is_called_once_for_each_step_of_the_optimizer(
    tmp_path: Path, accumulate: int, steps: list[int]
) -> None:
    """Five batches; the weights have moved by then."""
    module = make_module(nn.CrossEntropyLoss())
    seen: list[float] = []
    calls: list[int] = []

    def after_step() -> None:
        seen.append(module.network.head.weight.sum().item())
        calls.append(len(seen))

    module.after_step = after_step
    start = module.network.head.weight.sum().item()
    trainer = make_trainer(tmp_path, max_epochs=1, accumulate_grad_batches=accumulate)
    trainer.fit(module, datamodule=SmallDataModule(seed=0))
    assert calls == steps
    assert trainer.global_step == len(steps)
    assert len({start, *seen}) == len(steps) + 1
    assert seen[-1] == module.network.head.weight.sum().item()


def test_who_chooses_what_is_visited_needs_our_sampler(tmp_path: Path) -> None:
    class Selecting(CoTeaching):
        def prepare_epoch(self, epoch: int) -> None:
            self.sampler.select([0])

    x, y = make_samples(6)
    module: MultiNetworkModule = Selecting(Features, nn.Linear, nn.CrossEntropyLoss(), 3).double()
    with pytest.raises(NoisyLabelError, match=r"Selecting says which samples an epoch visits: use .*EpochSampler"):
        fit(tmp_path, module, x, y, 3)
