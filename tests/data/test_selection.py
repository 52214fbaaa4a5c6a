"""Samplers that are told what to visit: exactly that is visited, in any number of processes, and over a resume."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC
from lightning_noisy.data import (
    BalancedSampler,
    CIFAR10DataModule,
    EpochSampler,
    IndexedDataset,
    ResumableLoader,
    WeightedEpochSampler,
    announce_length,
)
from tests._dummies import write_cifar
from tests.foreign import ForeignModule, make_tensors, make_trainer, make_validation_loader
from tests.small import SmallDataModule, assert_same, make_module

SAMPLES = 24


def train_set():
    x, noisy, _ = make_tensors()
    return IndexedDataset(TensorDataset(x, noisy))


def visited(sampler, epoch):
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert {key.epoch for key in keys} == {epoch}
    assert len(keys) == len(sampler)
    return list(keys)


@pytest.mark.parametrize("chosen", [[3], [5, 1, 9], [2, 2, 7, 2, 0], torch.arange(24), np.array([4, 8])])
def test_exactly_the_selection_is_visited_in_another_order_each_epoch(chosen):
    sampler = EpochSampler(train_set(), seed=1)
    sampler.select(chosen)
    orders = [visited(sampler, epoch) for epoch in range(6)]
    assert all(sorted(order) == sorted(torch.as_tensor(chosen).tolist()) for order in orders)
    assert len(set(map(tuple, orders))) > 1 or len(set(orders[0])) == 1
    again = EpochSampler(train_set(), seed=1)
    again.select(torch.as_tensor(chosen).flip(0))
    assert visited(again, 4) == orders[4]
    sampler.select(None)
    assert visited(sampler, 7) == visited(EpochSampler(train_set(), seed=1), 7)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_selection_and_fill_it_up(world):
    samplers = [EpochSampler(train_set(), world, rank, seed=1) for rank in range(world)]
    for sampler in samplers:
        sampler.select([1, 4, 4, 9, 11, 20, 3])
    parts = [visited(sampler, 2) for sampler in samplers]
    assert len({len(part) for part in parts}) == 1
    mixed = [index for step in zip(*parts, strict=True) for index in step]
    assert sorted(mixed[:7]) == [1, 3, 4, 4, 9, 11, 20]
    assert mixed[7:] == mixed[: len(mixed) - 7]


@pytest.mark.parametrize("indices", [[], [24], [-1, 2], [0.5], [[1, 2]], [True], 3])
def test_what_cannot_be_visited_is_refused(indices):
    sampler = EpochSampler(train_set())
    for visit, name in ((sampler.select, "indices"), (sampler.arrange, "order")):
        with pytest.raises(NoisyLabelError, match=rf"`{name}` to be at least one position in \[0, 24\)"):
            visit(torch.tensor(indices))
    assert visited(sampler, 1) == visited(EpochSampler(train_set()), 1)


def test_a_selection_inside_an_epoch_waits_for_the_next():
    sampler = EpochSampler(train_set(), seed=1)
    running = iter(sampler)
    next(running)
    sampler.select([1, 2])
    assert len(sampler) == SAMPLES
    assert len(list(running)) == SAMPLES - 1
    assert len(list(sampler)) == SAMPLES  # a second pass, as of a loader that is shorter than another
    sampler.set_epoch(1)
    assert sorted(sampler) == [1, 2]


def test_samplers_that_choose_themselves_refuse():
    dataset, labels = train_set(), make_tensors()[1]
    for sampler in (BalancedSampler(dataset, labels, 8), WeightedEpochSampler(dataset, torch.ones(SAMPLES))):
        with pytest.raises(NoisyLabelError, match=type(sampler).__name__):
            sampler.select([1])
        with pytest.raises(NoisyLabelError, match=type(sampler).__name__):
            sampler.arrange([1])


class Selecting(Callback):
    """Another part of the training set in each epoch; notes what is visited, and how long Lightning takes it to be."""

    parts = ([0, 5, 9], list(range(20)), [7] * 9, list(range(24)))

    def __init__(self, loader):
        self.loader, self.seen, self.lengths, self.validations = loader, {}, [], []

    def on_train_start(self, trainer, pl_module):
        self.select(trainer)

    def on_train_epoch_start(self, trainer, pl_module):
        self.select(trainer)
        self.lengths.append(trainer.num_training_batches)

    def select(self, trainer):
        self.loader.sampler.select(self.parts[trainer.current_epoch])
        announce_length(trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.setdefault(trainer.current_epoch, []).extend(batch[2].tolist())
        assert trainer.is_last_batch == (batch_idx + 1 == trainer.num_training_batches)

    def on_validation_start(self, trainer, pl_module):
        self.validations.append(trainer.current_epoch)


def fit(folder, ckpt_path=None, checkpoint=None):
    torch.manual_seed(0)
    dataset = train_set()
    loader = ResumableLoader(dataset, batch_size=4, sampler=EpochSampler(dataset, seed=3))
    module, selecting = ForeignModule(), Selecting(loader)
    callbacks = [SELC(), selecting, *([checkpoint] if checkpoint else [])]
    trainer = make_trainer(folder, callbacks, 4, enable_checkpointing=checkpoint is not None)
    trainer.fit(module, loader, make_validation_loader(), ckpt_path=ckpt_path)
    return module.state_dict(), selecting


def test_a_trainer_visits_what_is_selected_and_knows_how_long_it_is(tmp_path):
    _, selecting = fit(tmp_path)
    assert {epoch: sorted(seen) for epoch, seen in selecting.seen.items()} == dict(
        enumerate(map(sorted, Selecting.parts))
    )
    assert selecting.lengths == [1, 5, 3, 6]
    assert selecting.validations == [0, 1, 2, 3]


@pytest.mark.parametrize("step", [1, 3, 6, 7, 9, 12])
def test_a_resume_equals_an_uninterrupted_run(tmp_path, step):
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, _ = fit(tmp_path, checkpoint=every)
    torch.save(torch.load(tmp_path / f"step={step}.ckpt", weights_only=True), tmp_path / "kept.ckpt")
    resumed, selecting = fit(tmp_path, tmp_path / "kept.ckpt")
    assert_same(whole, resumed)
    after = [part for begun, part in zip((0, 1, 6, 9), Selecting.parts, strict=True) if begun >= step]
    seen = [selecting.seen[epoch] for epoch in range(4 - len(after), 4)]
    assert [sorted(epoch) for epoch in seen] == [sorted(part) for part in after]


def test_two_loaders_select_complements(tmp_path):
    class Both(ForeignModule):
        def training_step(self, batch, batch_idx):
            for name in ("labeled", "unlabeled"):
                seen[name].setdefault(self.trainer.current_epoch, set()).update(batch[name][2].tolist())
            return super().training_step(batch["labeled"], batch_idx)

        def on_train_epoch_start(self):
            count = (6, 16)[self.trainer.current_epoch]
            loaders["labeled"].sampler.select(range(count))
            loaders["unlabeled"].sampler.select(range(count, SAMPLES))
            announce_length(self.trainer)

    dataset, seen = train_set(), {"labeled": {}, "unlabeled": {}}
    loaders = {
        name: ResumableLoader(dataset, batch_size=4, sampler=EpochSampler(dataset, seed=seed))
        for seed, name in enumerate(seen)
    }
    trainer = make_trainer(tmp_path)
    trainer.fit(Both(), loaders)
    for epoch, count in enumerate((6, 16)):
        assert seen["labeled"][epoch] == set(range(count))
        assert seen["unlabeled"][epoch] == set(range(count, SAMPLES))
    assert trainer.global_step == 5 + 4  # the longer loader of each epoch; the other starts again


def test_weights_say_how_often_a_sample_is_drawn():
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0] + [0.5] * 20)
    sampler = WeightedEpochSampler(train_set(), weights, size=400, seed=2)
    drawn = torch.tensor([index for epoch in range(50) for index in visited(sampler, epoch)])
    share = drawn.bincount(minlength=SAMPLES) / len(drawn)
    expected = weights / weights.sum()
    assert (share[weights == 0] == 0).all()
    assert ((share - expected).abs() < 5 * (expected / len(drawn)).sqrt() + 1e-9).all()
    ranks = [WeightedEpochSampler(train_set(), weights, 40, 2, rank, seed=2) for rank in range(2)]
    alone = visited(WeightedEpochSampler(train_set(), weights, 40, seed=2), 3)
    assert [index for pair in zip(*(visited(rank, 3) for rank in ranks), strict=True) for index in pair] == alone


def test_the_last_weights_may_be_zero():
    sampler = WeightedEpochSampler(train_set(), [1.0] + [0.0] * 23, size=64)
    assert set(visited(sampler, 0)) == {0}


@pytest.mark.parametrize("weights", [[1.0] * 23, [0.0] * 24, [1.0] * 23 + [-1.0], [1.0] * 23 + [float("nan")]])
def test_weights_that_cannot_be_drawn_by(weights):
    with pytest.raises(NoisyLabelError, match="`weights` to be 24 finite numbers of at least 0"):
        WeightedEpochSampler(train_set(), weights)


def test_a_data_module_scores_its_training_split_in_order(tmp_path):
    data = SmallDataModule(seed=0)
    data.setup("fit")
    loader = data.scoring_loader()
    images, targets, index = (torch.cat(column) for column in zip(*loader, strict=True))
    assert index.tolist() == list(range(40))
    assert torch.equal(targets, data.noisy_targets)
    kept = set(range(48))
    whole = data.training_images()
    rows = [next(row for row in kept if torch.equal(whole.image(row), image)) for image in images]
    assert rows == sorted(rows)
    assert torch.equal(whole.labels[rows], data.clean_targets)
    make_trainer(tmp_path, max_epochs=1).fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=data)
    assert data.sampler is data.train_dataloader().sampler


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_score_every_sample_once(monkeypatch, num_workers):
    seen = []
    for rank in range(3):
        data = SmallDataModule(seed=0, num_workers=num_workers)
        monkeypatch.setattr(data, "_processes", lambda rank=rank: (3, rank))
        data.setup("fit")
        mine = torch.cat([index for _, _, index in data.scoring_loader()]).tolist()
        assert mine == list(range(rank, 40, 3))
        seen += mine
    assert sorted(seen) == list(range(40))


def test_scored_images_are_those_of_evaluation_in_one_view(tmp_path, monkeypatch):
    images = {
        part: np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8) for part in ("train", "test")
    }
    write_cifar(monkeypatch, tmp_path, "CIFAR10", images, {part: np.arange(30) % 10 for part in images})
    data = CIFAR10DataModule(str(tmp_path), views=["weak", "strong"], num_workers=0, seed=0)
    data.setup("fit")
    scored = torch.cat([batch for batch, _, _ in data.scoring_loader()])
    evaluated = data.evaluation_transform()(torch.as_tensor(images["train"]).permute(0, 3, 1, 2))
    assert torch.equal(scored, evaluated)


def test_a_strategy_selects_at_the_start_of_an_epoch(tmp_path):
    data, module, seen = SmallDataModule(seed=0), make_module(torch.nn.CrossEntropyLoss()), {}

    class Halving(type(module)):
        def prepare_epoch(self, epoch):
            data.sampler.select(range(40 >> epoch))

        def step(self, batch):
            seen.setdefault(self.current_epoch, []).extend(batch.index.tolist())
            return super().step(batch)

    module.__class__ = Halving
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert {epoch: sorted(index) for epoch, index in seen.items()} == {e: list(range(40 >> e)) for e in range(3)}
    assert set(module.history) == {0, 1, 2}


ORDER = [7, 3, 9, 1, 20, 21, 20, 22, 1, 9, 3, 7, 20, 21, 20, 22]  # batches of four labeled and four unlabeled


@pytest.mark.parametrize("world", [1, 2])
def test_an_arrangement_is_visited_as_it_is_in_every_epoch(world):
    """Batches of eight over all processes: their halves stay halves."""
    samplers = [EpochSampler(train_set(), world, rank, seed=1) for rank in range(world)]
    for rank, sampler in enumerate(samplers):
        sampler.arrange(ORDER)
        for epoch in (0, 3):
            assert visited(sampler, epoch) == ORDER[rank::world]
            halves = torch.tensor(visited(sampler, epoch)).view(2, 2, 4 // world)
            assert (halves[:, 0] < 10).all()
            assert (halves[:, 1] >= 20).all()
        again = EpochSampler(train_set(), world, rank, seed=1)
        again.load_state_dict(sampler.state_dict(), inside=False)
        assert visited(again, 3) == ORDER[rank::world]


def test_an_arrangement_is_filled_up_from_its_beginning():
    parts = []
    for rank in range(3):
        sampler = EpochSampler(train_set(), 3, rank, seed=1)
        sampler.arrange([5, 4, 3, 2])
        parts.append(visited(sampler, 0))
    assert parts == [[5, 2], [4, 5], [3, 4]]


def test_a_selection_and_all_may_follow_an_arrangement():
    sampler, chosen, whole = (EpochSampler(train_set(), seed=1) for _ in range(3))
    sampler.arrange(ORDER)
    sampler.select(ORDER)
    chosen.select(ORDER)
    assert visited(sampler, 2) == visited(chosen, 2) != ORDER
    sampler.select(None)
    assert visited(sampler, 4) == visited(whole, 4)
    running = iter(sampler)
    next(running)
    sampler.arrange(ORDER)  # inside an epoch: from the next one on
    assert len(list(running)) == SAMPLES - 1
    assert visited(sampler, 5) == ORDER


class Arranging(Callback):
    """Another order in each epoch; notes what is visited."""

    orders = (ORDER, [5, 0, 5, 1, 2, 5, 0], list(range(23, -1, -1)))

    def __init__(self, *samplers):
        self.samplers, self.seen = samplers, {}

    def on_train_start(self, trainer, pl_module):
        self.arrange(trainer)

    def on_train_epoch_start(self, trainer, pl_module):
        self.arrange(trainer)

    def arrange(self, trainer):
        self.samplers[0].arrange(self.orders[trainer.current_epoch])
        announce_length(trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.setdefault(trainer.current_epoch, []).append(batch[2].tolist())


@pytest.mark.parametrize("step", [1, 3, 5, 6, 9])
def test_a_resume_goes_on_in_the_middle_of_an_arrangement(tmp_path, step):
    """Epochs of 4, 2 and 6 batches."""

    def fit(ckpt_path=None):
        torch.manual_seed(0)
        dataset = train_set()
        loader = ResumableLoader(dataset, batch_size=4, sampler=EpochSampler(dataset, seed=3))
        module, arranging = ForeignModule(), Arranging(loader.sampler)
        every = ModelCheckpoint(tmp_path / str(bool(ckpt_path)), "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(tmp_path, [SELC(), arranging, every], 3, enable_checkpointing=True)
        trainer.fit(module, loader, ckpt_path=ckpt_path)
        return module.state_dict(), [batch for epoch in range(3) for batch in arranging.seen.get(epoch, [])]

    whole, seen = fit()
    expected = [order[start : start + 4] for order in Arranging.orders for start in range(0, len(order), 4)]
    assert seen == expected
    resumed, rest = fit(tmp_path / "False" / f"step={step}.ckpt")
    assert rest == expected[step:]
    assert_same(whole, resumed)


def test_one_of_two_loaders_may_be_arranged(tmp_path):
    class Both(ForeignModule):
        def training_step(self, batch, batch_idx):
            for name, part in batch.items():
                seen[name].append(part[2].tolist())
            return super().training_step(batch["own"], batch_idx)

        def on_train_epoch_start(self):
            loaders["own"].sampler.arrange(Arranging.orders[self.trainer.current_epoch])
            announce_length(self.trainer)

    dataset, seen = train_set(), {"own": [], "other": []}
    loaders = {
        name: ResumableLoader(dataset, batch_size=size, sampler=EpochSampler(dataset, seed=1))
        for name, size in (("own", 4), ("other", 12))
    }
    make_trainer(tmp_path, max_epochs=3).fit(Both(), loaders)
    batches = [[order[start : start + 4] for start in range(0, len(order), 4)] for order in Arranging.orders]
    assert seen["own"] == [batch for epoch in batches for batch in epoch]
    assert len(seen["other"]) == 4 + 2 + 6  # it starts again where it is shorter, and ends with the longer one
