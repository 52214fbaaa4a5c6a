"""The index of a training batch, taken from the loader in projects that know nothing of it."""

import copy
import gc
import multiprocessing
import pickle
import weakref

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from lightning_utilities.core.imports import RequirementCache
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, ConfidenceTracker, LabelWriter
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.data import EpochSampler, IndexedDataset, ResumableLoader
from tests.foreign import make_trainer

SAMPLES, CLASSES = 22, 4
PLACES = torch.arange(float(SAMPLES))
LABELS = torch.arange(SAMPLES) * 7 % CLASSES


def data(samples=SAMPLES):
    """Sample i is the number i, and its label."""
    return TensorDataset(PLACES[:samples].unsqueeze(1), LABELS[:samples])


class Project(LightningModule):
    """Trains on ``(x, y)``; with several loaders on the part ``name``."""

    def __init__(self, name=None):
        super().__init__()
        self.net = nn.Linear(1, CLASSES)
        self.criterion = nn.CrossEntropyLoss()
        self.name = name
        self.places = None

    def training_step(self, batch, batch_idx):
        x, y = self.taken(batch)
        self.places = self.rows_of(x[:, 0].long())
        return self.criterion(self.net(x / SAMPLES), y)

    def rows_of(self, places):
        return places

    def taken(self, batch):
        part = batch if self.name is None else batch[self.name]
        return (part["x"], part["y"]) if isinstance(part, dict) else part[:2]

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Look(CriterionCallback):
    """Compares the index of each batch with what the step has seen."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        self.module = pl_module

    def join(self, pipeline):
        pipeline.add_observer(self)

    def observe_target(self, call):
        assert torch.equal(call.index.cpu(), self.module.places)
        self.seen.append(call.index.tolist())


def fit(folder, loaders, look=None, name=None, callbacks=(), module=None, epochs=3, **options):
    look = look or Look()
    trainer = make_trainer(folder, [look, *callbacks], epochs, **options)
    if isinstance(loaders, LightningDataModule):
        trainer.fit(module or Project(name), datamodule=loaders)
    else:
        trainer.fit(module or Project(name), *(loaders if isinstance(loaders, tuple) else (loaders,)))
    return getattr(look, "seen", None)


def dicts():
    return [{"x": PLACES[i : i + 1], "y": LABELS[i]} for i in range(SAMPLES)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.ones(9))


def weighted():
    return WeightedRandomSampler(torch.arange(1.0, SAMPLES + 1), 30)


ALONE = {
    "shuffled": lambda: DataLoader(data(), 4, shuffle=True),
    "drop last": lambda: DataLoader(data(), 4, shuffle=True, drop_last=True),
    "weighted": lambda: DataLoader(data(), 4, sampler=weighted()),
    "batch sampler": lambda: DataLoader(data(), batch_sampler=BatchSampler(weighted(), 5, drop_last=True)),
    "whole batches": lambda: DataLoader(data(), batch_size=None, sampler=BatchSampler(RandomSampler(data()), 4, False)),
    "dicts": lambda: DataLoader(dicts(), 4, shuffle=True),
    "concatenated": lambda: DataLoader(ConcatDataset([Subset(data(), range(9)), Subset(data(), range(9, 22))]), 4),
    "indexed": lambda: DataLoader(IndexedDataset(data()), 4, shuffle=True),
    "resumable": lambda: ResumableLoader(data(), batch_size=4, sampler=EpochSampler(data(), seed=2)),
    "workers": lambda: DataLoader(data(), 4, shuffle=True, num_workers=2),
    "persistent workers": lambda: DataLoader(
        data(), 4, shuffle=True, num_workers=2, persistent_workers=True, prefetch_factor=3
    ),
}


@pytest.mark.parametrize("kind", ALONE)
def test_one_loader(tmp_path, kind):
    loader = ALONE[kind]()
    seen = fit(tmp_path, loader)
    assert len(seen) == 3 * len(loader)
    assert type(loader) in (DataLoader, ResumableLoader)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_lightning_leaves_or_takes_twice(tmp_path, workers):
    loader = DataLoader(data(), 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    if workers:
        next(iter(loader))  # its workers live already

    class Peek(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1 and not workers:
                next(iter(trainer.train_dataloader))

    limits = {"limit_train_batches": 4, "val_check_interval": 2, "num_sanity_val_steps": 1}
    seen = fit(tmp_path, (loader, loader if not workers else None), callbacks=[Peek()], **limits)
    assert len(seen) == 12
    assert len(fit(tmp_path, loader, epochs=2)) == 12  # the same loader in another run
    assert len(fit(tmp_path, loader, overfit_batches=2)) == 6


def test_batches_that_no_step_sees(tmp_path):
    def collate(samples):
        return None if any(x == 5 for x, _ in samples) else default_collate(samples)

    assert len(fit(tmp_path, DataLoader(data(), 4, shuffle=True, collate_fn=collate))) == 3 * 5


MODES = ["max_size_cycle", "min_size", "max_size"]


def labeled_and_more(stream):
    whole = data()
    loaders = {
        "long": DataLoader(whole, 4),
        "short": DataLoader(Subset(whole, [15, 3, 8, 9, 21, 0, 1, 2, 11, 12, 13]), 4, shuffle=True),
        "indexed": DataLoader(IndexedDataset(whole), 4, shuffle=True),
    }
    return loaders | ({"stream": DataLoader(Stream(), batch_size=1)} if stream else {})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
@pytest.mark.parametrize("name", ["long", "short", "indexed"])
def test_several_loaders(tmp_path, name, mode, stream):
    """Beside a loader without length Lightning fetches one batch ahead."""

    class OfIts(Project):
        def rows_of(self, places):
            rows = [15, 3, 8, 9, 21, 0, 1, 2, 11, 12, 13]  # alone a part counts by itself
            return torch.tensor([rows.index(place) for place in places]) if name == "short" else places

    batches = {("max_size_cycle", False): 6, ("max_size_cycle", True): 9}.get((mode, stream), 3)
    loaders = CombinedLoader(labeled_and_more(stream), mode)
    assert len(fit(tmp_path, loaders, Look(index_key=name), module=OfIts(name))) == 3 * batches


@pytest.mark.parametrize("mode", ["max_size", "max_size_cycle"])
def test_rows_of_several_loaders_are_those_of_the_set_around(tmp_path, mode):
    class Both(Project):
        def training_step(self, batch, batch_idx):
            parts = [batch[name] for name in ("long", "short") if batch[name] is not None]
            x, y = (torch.cat(column) for column in zip(*parts, strict=True))
            self.places = x[:, 0].long()
            return self.criterion(self.net(x / SAMPLES), y)

    loaders = labeled_and_more(stream=False)
    del loaders["indexed"]
    assert len(fit(tmp_path, CombinedLoader(loaders, mode), module=Both())) == 18


def fit_on_two(rank, kind, folder):
    multiprocessing.current_process()._config["daemon"] = False  # these may have children
    dataset = Unlabeled() if kind == "unlabeled" else data()
    options = {"num_workers": 2, "persistent_workers": True} if kind == "persistent workers" else {}
    loader = DataLoader(dataset, 4, shuffle=True, **options)
    look = Look()
    trainer = make_trainer(folder, [look], 3, devices=2, strategy="ddp", enable_checkpointing=kind == "unlabeled")
    trainer.fit(Project(), loader)
    return look.seen


@pytest.mark.parametrize("kind", ["plain", "unlabeled", "persistent workers"])
def test_two_processes(pool, tmp_path, kind):
    ranks = pool.run(fit_on_two, kind, tmp_path)
    for epoch in range(3):
        visited = [row for seen in ranks for batch in seen[3 * epoch : 3 * epoch + 3] for row in batch]
        assert sorted(visited) == list(range(SAMPLES))
    if kind == "unlabeled":
        (saved,) = tmp_path.rglob("*.ckpt")
        sections = torch.load(saved, weights_only=True)["callbacks"]["lightning_noisy"]["sections"]
        assert torch.equal(sections["labels"]["stores"]["criterion"]["values"], LABELS)


def test_loaders_that_are_remade(tmp_path):
    class Remade(LightningDataModule):
        made = 0

        def train_dataloader(self):
            self.made += 1
            return DataLoader(Subset(data(), range(3, 19)), 4, shuffle=True)

    class Shifted(Project):
        def taken(self, batch):
            return batch[0] - 3, batch[1]

    remade = Remade()
    options = {"reload_dataloaders_every_n_epochs": 1, "module": Shifted()}
    assert len(fit(tmp_path, remade, **options)) == 12
    assert remade.made == 3

    class Other(Remade):
        def train_dataloader(self):
            self.made += 1
            return DataLoader(Subset(data(), range(self.made, self.made + 16)), 4)

    with pytest.raises(NoisyLabelError, match=r"loaders of epoch 1 read another set, .* Subset of it"):
        fit(tmp_path, Other(), SELC(check_labels=False), reload_dataloaders_every_n_epochs=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_inside_an_epoch(tmp_path, workers):
    def loader():
        return ResumableLoader(data(), batch_size=4, sampler=EpochSampler(data(), seed=2), num_workers=workers)

    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(tmp_path, loader(), callbacks=[every], enable_checkpointing=True)
    look = Look()
    make_trainer(tmp_path, [look], 3).fit(Project(), loader(), ckpt_path=tmp_path / "step=8.ckpt")
    assert look.seen == whole[8:]


def test_after_an_exception_the_loader_is_the_users(tmp_path):
    class Broken(Project):
        def training_step(self, batch, batch_idx):
            raise ZeroDivisionError

    loader = DataLoader(data(), 4, shuffle=True)
    trainer = make_trainer(tmp_path, [Look()])
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken(), loader)
    assert type(loader) is DataLoader
    assert "process_dataloader" not in vars(trainer.strategy)
    assert len(fit(tmp_path, loader)) == 18


def test_copies_of_a_loader_in_a_run_are_plain(tmp_path):
    copies = []

    class Copy(Callback):
        def on_train_start(self, trainer, pl_module):
            copies.extend(
                [copy.deepcopy(trainer.train_dataloader), pickle.loads(pickle.dumps(trainer.train_dataloader))]
            )

    fit(tmp_path, DataLoader(data(), 4), callbacks=[Copy()], epochs=1)
    assert [type(each) for each in copies] == [DataLoader] * 2
    assert all(len(list(each)) == 6 for each in copies)


class Permuting(Project):
    def taken(self, batch):
        order = torch.randperm(len(batch[0]))
        return batch[0][order], batch[1][order]


class Unlabeled(Dataset):
    """Does not tell its labels without loading samples; ``replaced`` gives another sample instead of a broken one."""

    def __init__(self, replaced=None, redrawn=False):
        self.replaced, self.redrawn = replaced or {}, redrawn
        self.visits = 0

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        index = self.replaced.get(index, index)
        self.visits += 1
        return PLACES[index : index + 1], (LABELS[index] + self.redrawn * (self.visits // SAMPLES)) % CLASSES


def by_label(samples):
    return default_collate(sorted(samples, key=lambda sample: int(sample[1])))


@pytest.mark.parametrize(
    ("dataset", "module", "options", "message"),
    [
        (data(), Permuting, {}, "keep the order of the batch up to the criterion"),
        (Unlabeled(), Permuting, {}, "keep the order of the batch up to the criterion"),
        (data(), Project, {"collate_fn": by_label}, "labels at `criterion` are not those of the samples"),
        (Unlabeled(), Project, {"collate_fn": by_label}, "labels at `criterion` are not those of the samples"),
        (Unlabeled(redrawn=True), Project, {}, "`check_labels=False`"),
        (data(), Project, {"collate_fn": lambda samples: default_collate(samples[1:])}, "with 3 rows .* has 4 indices"),
        pytest.param(
            *(data(), Project, {"in_order": False}, "any order"),
            marks=pytest.mark.skipif(not RequirementCache("torch>=2.6"), reason="before, all loaders keep the order"),
        ),
    ],
)
def test_batches_of_other_samples_are_refused(tmp_path, dataset, module, options, message):
    loader = DataLoader(dataset, 4, shuffle=True, **options)
    with pytest.raises(NoisyLabelError, match=message) as error:
        make_trainer(tmp_path, [SELC()], 3).fit(module(), loader)
    assert "\n" not in str(error.value)


def test_labels_that_change_on_purpose(tmp_path):
    trainer = make_trainer(tmp_path, [SELC(check_labels=False), ConfidenceTracker()], 3)
    trainer.fit(Project(), DataLoader(Unlabeled(redrawn=True), 4, shuffle=True))
    assert trainer.global_step == 18


def test_keys_that_are_no_positions(tmp_path):
    class Named(Dataset):
        def __getitem__(self, key):
            return PLACES[int(key[1:]) : int(key[1:]) + 1], LABELS[int(key[1:])]

        def __len__(self):
            return SAMPLES

    loader = DataLoader(Named(), 4, sampler=[f"s{i}" for i in range(SAMPLES)])
    with pytest.raises(NoisyLabelError, match=r"hands out keys like \['s0', 's1'.*, which are no positions: wrap"):
        make_trainer(tmp_path, [SELC()]).fit(Project(), loader)

    class Own(DataLoader):
        def __iter__(self):
            yield from super().__iter__()

    kinds = []

    class Kind(Callback):
        def on_train_start(self, trainer, pl_module):
            kinds.append(type(trainer.train_dataloader))

    with pytest.raises(NoisyLabelError, match="Own has an iterator of its own"):
        make_trainer(tmp_path, [SELC(), Kind()]).fit(Project(), Own(data(), 4))
    assert kinds == [Own]


def test_columns_of_integers_are_never_taken_for_the_index(tmp_path):
    lengths = torch.arange(SAMPLES) + 40
    three = TensorDataset(PLACES.unsqueeze(1), lengths, LABELS)

    class Last(Project):
        def taken(self, batch):
            return batch[0], batch[2]

    assert len(fit(tmp_path, DataLoader(three, 4, shuffle=True), module=Last())) == 18
    with pytest.raises(NoisyLabelError, match=r"indices in \[0, 22\), but the batch has [4-6][0-9] to"):
        fit(tmp_path, DataLoader(three, 4, shuffle=True), Look(index_key=1), module=Last())


def test_labels_that_were_learned_outlast_a_resume(tmp_path):
    writer = LabelWriter(tmp_path / "labels.npz")
    trainer = make_trainer(tmp_path, [writer], 1)
    trainer.fit(Project(), DataLoader(Unlabeled(), 4))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    other = Unlabeled({3: 4})
    with pytest.raises(NoisyLabelError, match=r"1 of 4 in epoch 1, batch 0: sample 3 has label 1, but 0 came"):
        make_trainer(tmp_path, [LabelWriter(tmp_path / "labels.npz")], 2).fit(
            Project(), DataLoader(other, 4), ckpt_path=tmp_path / "one.ckpt"
        )


@pytest.mark.parametrize(
    ("dataset", "where"),
    [
        (data(), "the positions that the loader hands out"),
        (IndexedDataset(data()), "the index that the data set's samples"),
    ],
)
def test_where_the_index_comes_from_is_logged_once(tmp_path, caplog, dataset, where):
    with caplog.at_level("INFO"):
        fit(tmp_path, DataLoader(dataset, 4), callbacks=[SELC()], epochs=2)
    (line,) = [text for text in caplog.messages if "tells training samples apart" in text]
    assert where in line


def test_a_loader_that_is_empty_gives_no_rows(tmp_path):
    loaders = {"a": DataLoader(data(), 4), "b": DataLoader(Subset(data(), []), 4)}
    assert len(fit(tmp_path, CombinedLoader(loaders, "max_size"), Look(index_key="a"), "a")) == 18


def test_no_batch_is_kept_alive_by_what_it_changed(tmp_path):
    alive = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            alive.append(weakref.ref(batch[0]))

        def on_train_epoch_end(self, trainer, pl_module):
            gc.collect()
            assert all(image() is None for image in alive[:-1])

        def on_train_end(self, trainer, pl_module):
            gc.collect()
            assert all(image() is None for image in alive)

    fit(tmp_path, DataLoader(data(), 4), callbacks=[Watch(), SELC()])
    assert len(alive) == 18
