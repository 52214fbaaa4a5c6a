from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError, data
from lightning_noisy.data import EpochSampler, ResumableLoader, ShardedSampler, samplers
from tests.hosts import ROOT


def dataset(count: int) -> TensorDataset:
    return TensorDataset(torch.zeros(count))


def epoch_of(count: int, world: int, epoch: int = 0, chosen: list[int] | None = None) -> list[list[int]]:
    """What each process visits."""
    samplers = [ShardedSampler(dataset(count), world, rank, seed=3) for rank in range(world)]
    for sampler in samplers:
        if chosen is not None:
            sampler.select(chosen)
        sampler.set_epoch(epoch)
    visits = [list(map(int, sampler)) for sampler in samplers]
    assert [len(visit) for visit in visits] == [len(sampler) for sampler in samplers]
    return visits


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 9))
def test_each_process_visits_its_own_samples_all_of_them_and_as_many_as_the_others(
    world: int, more: int, epoch: int
) -> None:
    count = world + more
    for rank, visits in enumerate(epoch_of(count, world, epoch)):
        own = list(range(rank, count, world))
        assert len(visits) == -(-count // world)
        assert sorted(visits[: len(own)]) == own
        assert visits[len(own) :] == visits[: len(visits) - len(own)], "filled up from its own beginning"


def test_order_is_another_one_in_each_epoch_and_that_of_the_plain_sampler_within_a_shard() -> None:
    plain = EpochSampler(dataset(31), 1, 0, seed=3)
    orders = []
    for epoch in range(3):
        plain.set_epoch(epoch)
        order, shards = list(map(int, plain)), epoch_of(31, 3, epoch)
        for rank, visits in enumerate(shards):
            wanted = [index for index in order if index % 3 == rank]
            assert visits[: len(wanted)] == wanted
        orders.append(shards[0])
        assert epoch_of(31, 1, epoch) == [order]
    assert orders[0] != orders[1] != orders[2]


@given(st.integers(1, 4), st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_a_selection_is_visited_by_those_whose_samples_it_has(world: int, chosen: list[int]) -> None:
    counts = [Counter(index for index in chosen if index % world == rank) for rank in range(world)]
    if not all(counts):
        with pytest.raises(NoisyLabelError, match="`indices` to be samples of each process") as caught:
            epoch_of(20, world, 1, chosen)
        assert "\n" not in str(caught.value)
        return
    longest = max(count.total() for count in counts)
    for visits, count in zip(epoch_of(20, world, 1, chosen), counts, strict=True):
        assert len(visits) == longest
        assert Counter(visits[: count.total()]) == count
        assert set(visits) == set(count)


def test_a_selection_can_be_given_up() -> None:
    sampler = ShardedSampler(dataset(10), 2, 1)
    sampler.select([1, 2])
    sampler.select(None)
    assert sorted(map(int, sampler)) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("name", ["EpochSampler", "ShardedSampler", "BalancedSampler", "WeightedEpochSampler"])
def test_processes_that_start_after_the_sampler_was_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As those of a Trainer do, which starts them in `fit`."""
    labels = torch.arange(11) % 2
    more: dict[str, dict[str, Any]] = {
        "BalancedSampler": {"targets": labels, "size": 7},
        "WeightedEpochSampler": {"weights": labels + 1.0, "size": 8},
    }
    make = partial(getattr(data, name), dataset(11), **more.get(name, {}))
    early = make()
    loader = ResumableLoader(early.dataset, batch_size=2, sampler=early)
    for world, rank in ((3, 2), (2, 0)):
        monkeypatch.setattr(samplers, "process_count", lambda world=world: world)
        monkeypatch.setattr(samplers, "process_rank", lambda rank=rank: rank)
        told = make(num_replicas=world, rank=rank)
        assert list(map(int, early)) == list(map(int, told))
        assert (len(early), len(loader)) == (len(told), -(-len(told) // 2))
        assert loader.state_dict()["processes"] == world
    monkeypatch.setattr(samplers, "process_count", lambda: 12)
    if name == "ShardedSampler":
        with pytest.raises(NoisyLabelError, match="`num_replicas` to be at most 11"):
            list(early)


@pytest.mark.slow
def test_a_trainer_starts_processes_after_the_loader_was_made(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    visited = [sorted(map(int, (tmp_path / f"{rank}.txt").read_text().split())) for rank in (0, 1)]
    assert visited == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]


SCRIPT = """
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import TensorDataset

from lightning_noisy import Storage
from lightning_noisy.callbacks import SELC
from lightning_noisy.data import IndexedDataset, ResumableLoader, ShardedSampler


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.criterion, self.layer, self.seen = nn.CrossEntropyLoss(), nn.Linear(2, 3), []

    def training_step(self, batch, batch_idx):
        self.seen += batch[2].tolist()
        return self.criterion(self.layer(batch[0]), batch[1])

    def on_train_end(self):
        Path(__file__).with_name(f"{self.global_rank}.txt").write_text(" ".join(map(str, self.seen)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


if __name__ == "__main__":
    train_set = IndexedDataset(TensorDataset(torch.randn(12, 2), torch.arange(12) % 3))
    loader = ResumableLoader(train_set, batch_size=3, sampler=ShardedSampler(train_set))
    callbacks = [SELC(storage=Storage(sharded=True))]
    plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, callbacks=callbacks, **plain)
    trainer.fit(Model(), loader)
"""


def test_refused() -> None:
    with pytest.raises(NoisyLabelError, match="`num_replicas` to be at most 3, the number of samples, but got 4"):
        ShardedSampler(dataset(3), 4, 0)
    with pytest.raises(NoisyLabelError, match="ShardedSampler cannot arrange batches, which would cross shards"):
        ShardedSampler(dataset(3), 2, 0).arrange([0, 1])
