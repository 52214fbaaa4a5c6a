import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Subset

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import SELC, ConfidenceTracker, RunSummary, StepSeed
from lightning_noisy.data import EpochSampler, FeaturesDataModule, FileNoise, SymmetricNoise, features
from lightning_noisy.data.epoch_index import at_epoch
from lightning_noisy.data.in_memory import Columns, InMemoryDataset
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import MLP
from tests._dummies import command_line_error, isolate, quiet, write_features
from tests.foreign import make_trainer
from tests.small import MemoryLogger, assert_same

SAMPLES, WIDTH, CLASSES = 24, 5, 4
X = np.random.default_rng(0).normal(3, 2, size=(SAMPLES, WIDTH)).astype(np.float16)
Y = np.random.default_rng(1).permutation(np.arange(SAMPLES) % CLASSES).astype(np.uint8)
WRONG = (Y + (np.arange(SAMPLES) % 3 == 0)) % CLASSES  # a third of the labels is the next one
NOISE = SymmetricNoise(0.5)


@pytest.fixture
def path(tmp_path):
    """All samples in one archive, without a test set."""
    np.savez(tmp_path / "all.npz", x=X, y=Y)
    return tmp_path / "all.npz"


def ready(path, **options):
    data = FeaturesDataModule(path, **{"batch_size": 7, "seed": 3, **options})
    data.setup("fit")
    return data


def raw(path, **options):
    return ready(path, standardize=None, **options)


def read(loader):
    """All batches, joined."""
    return [torch.cat(parts) for parts in zip(*loader, strict=True)]


def training(data):
    """Features and given labels in the order of the file."""
    x, target, index = read(data.train_dataloader())
    assert torch.equal(index.sort().values, torch.arange(len(index)))
    return x[index.argsort()].numpy(), target[index.argsort()].numpy()


# Files


def test_batches_hold_the_rows_of_the_file_with_their_labels(path):
    batches = list(raw(path).train_dataloader())

    assert [len(batch[1]) for batch in batches] == [7, 7, 7, 3]
    for x, target, index in batches:
        assert (x.dtype, target.dtype, index.dtype) == (torch.float32, torch.int64, torch.int64)
        assert np.array_equal(x, X[index].astype(np.float32))
        assert np.array_equal(target, Y[index])


def write(folder, kind):
    """The same features and labels in another kind of file; the arguments that read it."""
    if kind == "npz":
        np.savez_compressed(folder / "f.npz", x=X, y=Y, names=np.array(["a", None], dtype=object))
        return folder / "f.npz", {}
    if kind == "pt":
        torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y).long(), "model": "a name"}, folder / "f.pt")
        return folder / "f.pt", {}
    np.save(folder / "f.npy", X)
    if kind == "npy":
        np.save(folder / "labels.npy", Y)
        return folder / "f.npy", {"labels": folder / "labels.npy"}
    np.savez(folder / "labels.npz", other=WRONG, mine=Y)
    return folder / "f.npy", {"labels": str(folder / "labels.npz"), "labels_key": "mine"}


@pytest.mark.parametrize("kind", ["npz", "pt", "npy", "npy and npz"])
def test_every_kind_of_file_gives_the_same(tmp_path, kind):
    path, options = write(tmp_path, kind)
    x, target = training(raw(path, **options))

    assert np.array_equal(x, X.astype(np.float32))
    assert np.array_equal(target, Y)


@pytest.mark.parametrize("kind", ["npz", "pt", "npy"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64"])
def test_numbers_of_every_type_become_float32(tmp_path, kind, dtype):
    numbers = np.asfortranarray((10 * X).astype(dtype))
    np.save(tmp_path / "y.npy", Y)
    if kind == "pt":
        torch.save({"x": torch.from_numpy(numbers)}, tmp_path / "f.pt")
    else:
        (np.save if kind == "npy" else lambda path, x: np.savez(path, x=x))(tmp_path / f"f.{kind}", numbers)

    x, _ = training(raw(tmp_path / f"f.{kind}", labels=tmp_path / "y.npy"))
    assert x.dtype == np.float32
    assert np.array_equal(x, numbers.astype(np.float32))


def test_half_precision_of_the_brain_kind_is_read(tmp_path):
    numbers = torch.from_numpy(X).bfloat16()
    torch.save({"x": numbers, "y": torch.from_numpy(Y)}, tmp_path / "f.pt")

    assert np.array_equal(training(raw(tmp_path / "f.pt"))[0], numbers.float())


def test_given_labels_stand_for_those_of_the_file(path):
    np.save(path.with_name("other.npy"), WRONG)

    assert np.array_equal(training(raw(path, labels=path.with_name("other.npy")))[1], WRONG)


# Test sets


def test_set_of(data):
    x, target = read(data.test_dataloader())
    for other in (data.val_dataloader()[-1], data.predict_dataloader()):
        assert all(torch.equal(a, b) for a, b in zip(read(other), (x, target), strict=True))
    assert (x.dtype, target.dtype) == (torch.float32, torch.int64)
    return x.numpy(), target.numpy()


test_set_of.__test__ = False


@pytest.mark.parametrize("rows", [1, 10, SAMPLES - 1])
def test_the_last_rows_are_the_test_set(path, rows):
    data = raw(path, test_rows=rows)
    x, target = test_set_of(data)

    assert np.array_equal(x, X[-rows:].astype(np.float32))
    assert np.array_equal(target, Y[-rows:])
    assert np.array_equal(training(data)[0], X[:-rows].astype(np.float32))
    assert np.array_equal(training(data)[1], Y[:-rows])


@pytest.mark.parametrize("kind", ["arrays", "npz", "pt"])
def test_a_test_set_of_its_own(tmp_path, kind):
    path = tmp_path / "train.npz"
    test = {"x": X[:9] + 1, "y": Y[:9]}
    np.savez(path, x=X, y=Y, **({f"{name}_test": array for name, array in test.items()} if kind == "arrays" else {}))
    np.savez(tmp_path / "test.npz", **test)
    torch.save({name: torch.from_numpy(array) for name, array in test.items()}, tmp_path / "test.pt")

    data = raw(path, **({} if kind == "arrays" else {"test_path": tmp_path / f"test.{kind}"}))
    x, target = test_set_of(data)

    assert np.array_equal(x, test["x"].astype(np.float32))
    assert np.array_equal(target, test["y"])
    assert len(training(data)[0]) == SAMPLES


@pytest.mark.parametrize("val_fraction", [0.0, 0.25])
def test_without_a_test_set_nothing_is_tested(path, val_fraction):
    data = raw(path, val_fraction=val_fraction)

    assert data.validation_splits == (("val",) if val_fraction else ())
    assert len(data.val_dataloader()) == len(data.validation_splits)
    for loader in (data.test_dataloader, data.predict_dataloader):
        with pytest.raises(NoisyLabelError, match=r"^This FeaturesDataModule has no test set, which `test` and"):
            loader()


# Standardization


def standardized(x, by):
    """In float64, by the columns of ``by``."""
    by = by.astype(np.float64)
    return (x.astype(np.float64) - by.mean(axis=0)) / by.std(axis=0)


@pytest.mark.parametrize("chunk", [2**16, 5, 1])
@pytest.mark.parametrize("options", [{}, {"val_fraction": 0.4}, {"seed": 9, "noise": NOISE}])
def test_features_are_standardized_over_the_training_set(path, monkeypatch, chunk, options):
    monkeypatch.setattr(features, "_CHUNK", chunk)
    data = ready(path, test_rows=8, **options)
    expected = standardized(X, X[:-8])

    assert np.allclose(test_set_of(data)[0], expected[-8:], atol=1e-5)
    x = training(data)[0]
    if "val_fraction" in options:
        x = np.concatenate([x, read(data.val_dataloader()[0])[0].numpy()])
    assert np.allclose(np.sort(x, axis=0), np.sort(expected[:-8], axis=0), atol=1e-5)


def test_all_features_have_one_scale(path):
    x = training(ready(path, test_rows=8, standardize="overall"))[0]
    known = X[:-8].astype(np.float64)
    expected = (known - known.mean(axis=0)) / np.sqrt(known.var(axis=0).mean())
    assert np.allclose(np.sort(x, axis=0), np.sort(expected, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("widest", "scaling", "said"), [(9, "overall", True), (2, "overall", False), (9, "columns", False)]
)
def test_a_feature_that_drowns_the_others_is_named(tmp_path, recwarn, widest, scaling, said):
    x = np.random.default_rng(0).normal(size=(60, 5)) * [1, 1, widest, 1, 1]
    np.savez(tmp_path / "f.npz", x=x, y=np.arange(60) % 2)
    ready(tmp_path / "f.npz", standardize=scaling)
    lines = [str(one.message) for one in recwarn if "variance" in str(one.message)]
    assert len(lines) == said
    assert all("Column 2 of the features has 9" in line for line in lines)


def test_a_constant_feature_is_only_moved(tmp_path):
    x = X.astype(np.float32)
    x[:, 1] = 1e6 / 3
    x[-1, 1] += 2
    np.savez(tmp_path / "f.npz", x=x, y=Y)
    data = ready(tmp_path / "f.npz", test_rows=1)

    assert (training(data)[0][:, 1] == 0).all()
    assert test_set_of(data)[0][0, 1] == x[-1, 1] - x[0, 1]
    assert np.allclose(training(data)[0][:, 2:], standardized(x[:-1, 2:], x[:-1, 2:]), atol=1e-5)


numbers = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=st.floats(-1e6, 1e6, width=32)
)


@given(numbers)
@settings(max_examples=100)
def test_moments_of_anything(x):
    transform = features._Standardize.of(torch.from_numpy(x), "columns")
    std = x.astype(np.float64).std(axis=0).astype(np.float32)

    mean, scale = transform.mean.samples, transform.scale.samples
    assert np.allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-30)
    assert np.allclose(scale, np.where(std < np.finfo(np.float32).tiny, 1, std), rtol=1e-5)
    assert (scale[torch.from_numpy((x == x[0]).all(axis=0))] == 1).all()
    assert transform(torch.from_numpy(x)).isfinite().all()


# What the labels mean


def test_with_noise_the_labels_of_the_file_are_clean(path):
    data = raw(path, noise=NOISE, test_rows=4)
    clean = torch.from_numpy(Y[:-4]).long()

    assert torch.equal(data.clean_targets, clean)
    assert torch.equal(data.noisy_targets, NOISE.corrupt(clean, CLASSES, 3))
    assert data.realized_noise_rate == (data.noisy_targets != clean).double().mean().item() > 0
    assert np.array_equal(training(data)[1], data.noisy_targets)
    assert np.array_equal(test_set_of(data)[1], Y[-4:])


def test_human_labels_come_from_a_file(path):
    np.savez(path.with_name("human.npz"), worse=WRONG[:-6], clean=Y[:-6])
    data = raw(path, noise=FileNoise(path.with_name("human.npz"), "worse"), test_rows=6)

    assert np.array_equal(training(data)[1], WRONG[:-6])
    assert np.array_equal(data.clean_targets, Y[:-6])
    assert data.realized_noise_rate == pytest.approx(6 / 18)


def test_with_clean_labels_beside_them_the_labels_are_noisy(tmp_path):
    np.savez(tmp_path / "f.npz", x=X, y=WRONG, clean=Y)
    data = raw(tmp_path / "f.npz", test_rows=6)

    assert np.array_equal(training(data)[1], WRONG[:-6])
    assert np.array_equal(data.clean_targets, Y[:-6])
    assert np.array_equal(test_set_of(data)[1], Y[-6:])
    assert data.realized_noise_rate == pytest.approx(6 / 18)


@pytest.mark.parametrize("noisy_val", [True, False])
def test_the_validation_split_of_noisy_labels(tmp_path, noisy_val):
    np.savez(tmp_path / "f.npz", x=np.arange(SAMPLES)[:, None], y=WRONG, clean=Y)
    x, target = read(raw(tmp_path / "f.npz", val_fraction=0.5, noisy_val=noisy_val).val_dataloader()[0])

    assert len(x) == 12
    assert np.array_equal(target, (WRONG if noisy_val else Y)[x[:, 0].int()])


@pytest.mark.parametrize("val_fraction", [0.0, 0.25])
def test_labels_alone_are_those_of_the_run_and_nobody_knows_more(path, val_fraction):
    data = raw(path, val_fraction=val_fraction)

    assert data.clean_targets is None
    assert data.realized_noise_rate is None
    assert len(data.noisy_targets) == round(SAMPLES * (1 - val_fraction))


def test_clean_labels_of_the_validation_split_must_be_known(path):
    assert raw(path, noisy_val=False)
    with pytest.raises(
        NoisyLabelError, match=r"`noisy_val` to be true, as nobody knows .* but got False: leave it out"
    ):
        raw(path, noisy_val=False, val_fraction=0.2)


def test_noise_on_top_of_noise_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", x=X, y=WRONG, clean=Y)
    with pytest.raises(
        NoisyLabelError, match=r"comes with noisy labels, but got noise=SymmetricNoise\(rate=0\.5, .*out"
    ):
        raw(tmp_path / "f.npz", noise=NOISE)


@pytest.mark.parametrize("where", ["y", "clean", "y_test"])
def test_the_largest_label_of_all_says_how_many_classes_there_are(tmp_path, where):
    arrays = {"x": X, "y": Y, "clean": Y.copy(), "x_test": X, "y_test": Y.copy()}
    arrays[where] = np.where(np.arange(SAMPLES) == 5, 9, arrays[where])
    np.savez(tmp_path / "f.npz", **arrays)

    assert ready(tmp_path / "f.npz").num_classes == 10
    assert ready(tmp_path / "f.npz", num_classes=12).num_classes == 12
    with pytest.raises(NoisyLabelError, match=rf"labels `{where}` in \[0, 9\), but got 9 at position 5: "):
        ready(tmp_path / "f.npz", num_classes=9)


def test_the_number_of_classes_is_for_the_noise_as_well(path):
    assert set(training(raw(path, noise=SymmetricNoise(1.0), num_classes=50))[1]) - set(range(CLASSES))


# Batches


def test_a_batch_is_a_list_that_mixup_can_change(path):
    batch = next(iter(ready(path, test_rows=10).train_dataloader()))
    assert isinstance(batch, list)
    assert [column.shape[0] for column in batch] == [7, 7, 7]


def test_a_batch_is_gathered_at_once(path, monkeypatch):
    calls = []
    monkeypatch.setattr(features._Standardize, "__call__", lambda self, x, draws: calls.append(tuple(x.shape)) or x)
    monkeypatch.setattr(InMemoryDataset, "__getitem__", None)
    monkeypatch.setattr(Columns, "__getitem__", None)
    data = ready(path, test_rows=10)

    read(data.train_dataloader())
    assert calls == [(7, WIDTH), (7, WIDTH)]
    read(data.test_dataloader())
    assert calls[2:] == [(7, WIDTH), (3, WIDTH)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("val_fraction", [0.0, 0.3])
def test_the_order_is_that_of_the_sampler(path, num_workers, val_fraction):
    data = raw(path, num_workers=num_workers, val_fraction=val_fraction)
    loader = data.train_dataloader()
    for epoch in (2, 0):
        iterator = iter(loader)
        loader.sampler.set_epoch(epoch)
        sampler = EpochSampler(range(len(loader.dataset)), 1, 0, seed=3)
        sampler.set_epoch(epoch)
        assert read(iterator)[2].tolist() == list(sampler)


def test_samples_one_by_one_are_those_of_the_batches(path):
    data = ready(path, noise=NOISE, test_rows=10)
    dataset = data.train_dataloader().dataset
    whole = dict(zip(("x", "target"), training(data), strict=True))

    assert len(dataset) == 14
    for index in (0, 13):
        for key in (index, at_epoch(index, 5)):
            x, target, found = dataset[key]
            assert np.array_equal(x, whole["x"][index])
            assert (target.item(), found.item()) == (whole["target"][index], index)
    x, target = data.test_dataloader().dataset[9]
    assert np.array_equal(x, test_set_of(data)[0][9])
    assert target.item() == Y[-1]


def test_other_loaders_collate_the_samples_themselves(path):
    dataset = raw(path, test_rows=10).train_dataloader().dataset
    x, target, index = next(iter(DataLoader(Subset(dataset, [4, 9, 2]), 3)))

    assert index.tolist() == [4, 9, 2]
    assert np.array_equal(x, X[[4, 9, 2]].astype(np.float32))
    assert np.array_equal(target, Y[[4, 9, 2]])


def test_state_of_other_labels_can_be_told(path):
    data = ready(path, noise=NOISE, val_fraction=0.25)
    assert torch.equal(known_labels(data.train_dataloader().dataset), data.noisy_targets)


def test_two_processes_share_the_samples(path):
    single = raw(path, batch_size=4, test_rows=9)
    parts, tests = [], []
    for rank in range(2):
        data = FeaturesDataModule(path, batch_size=2, seed=3, test_rows=9, standardize=None, data_on="loader")
        data.trainer = SimpleNamespace(
            world_size=2, global_rank=rank, is_global_zero=rank == 0, log_dir=None, loggers=[], fast_dev_run=False
        )
        data.setup("fit")
        parts.append(list(data.train_dataloader()))
        tests.append(read(data.test_dataloader()))

    whole = list(single.train_dataloader())
    assert [len(part) for part in parts] == [len(whole)] * 2 == [4, 4]
    for batch, *halves in list(zip(whole, *parts, strict=True))[:3]:
        index = torch.cat([half[2] for half in halves])
        assert torch.equal(index.sort().values, batch[2].sort().values)
        assert np.array_equal(torch.cat([half[0] for half in halves]), X[index].astype(np.float32))
    assert sorted(torch.cat([test[0][:, 0] for test in tests]).tolist()) == sorted(X[-9:, 0].tolist())


def test_a_run_is_a_function_of_its_seed(path):
    first = [list(ready(path, noise=NOISE, val_fraction=0.2).train_dataloader()) for _ in range(2)]
    torch.manual_seed(99)
    again = list(ready(path, noise=NOISE, val_fraction=0.2).train_dataloader())

    assert_same(first[0], first[1])
    assert_same(first[0], again)
    other = list(ready(path, noise=NOISE, val_fraction=0.2, seed=4).train_dataloader())
    assert other[0][2].tolist() != again[0][2].tolist()


def test_a_loader_goes_on_inside_an_epoch(path):
    data = ready(path, noise=NOISE)
    whole, loader = data.train_dataloader(), data.train_dataloader()
    whole.sampler.set_epoch(2)
    complete = list(whole)
    iterator = iter(loader)
    loader.sampler.set_epoch(2)
    assert_same([next(iterator), next(iterator)], complete[:2])
    resumed = ready(path, noise=NOISE).train_dataloader()
    resumed.load_state_dict(loader.state_dict())

    assert resumed.state_dict()["batches"] == 2
    assert_same(list(resumed), complete[2:])


# Runs


def make_module(hidden=(16,), seed=0):
    torch.manual_seed(seed)
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # noqa: E731
    return NoisyLabelModule(MLP(20, hidden, dropout=0.2), LinearHead, nn.CrossEntropyLoss(), 10, optimizer)


def fit(folder, data, checkpoint=None, ckpt_path=None, max_epochs=3):
    logger = MemoryLogger()
    callbacks = [StepSeed(1), SELC(momentum=0.7, warmup_epochs=1), ConfidenceTracker(), RunSummary()]
    extra = {"enable_checkpointing": True} if checkpoint else {}
    callbacks += [checkpoint] if checkpoint else []
    trainer = make_trainer(folder, callbacks, max_epochs, logger=logger, **extra)
    trainer.fit(make_module(), datamodule=data, ckpt_path=ckpt_path)
    return trainer, logger.seen


def make_data(folder, **options):
    write_features(folder / "f.npz", 40, 20, width=20)
    return FeaturesDataModule(folder / "f.npz", **{"batch_size": 8, "seed": 0, "test_rows": 20, **options})


@pytest.mark.parametrize("step", [7, 10])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, step):
    def data():
        return make_data(tmp_path, noise=SymmetricNoise(0.4))

    every_step = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, seen = fit(tmp_path, data(), every_step)
    resumed, again = fit(tmp_path, data(), ckpt_path=tmp_path / f"step={step}.ckpt")

    assert whole.global_step == resumed.global_step == 15
    assert_same(whole.model.state_dict(), resumed.model.state_dict())
    for name in ("train/loss", "train/conf/noisy", "test/acc"):
        assert_same([seen[name][epoch] for epoch in (1, 2) if epoch in again[name]], list(again[name].values()))
        assert 2 in again[name]


def test_evidence_where_nobody_knows_clean_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(MemoryLogger, "save_dir", str(tmp_path / "run"), raising=False)
    _, seen = fit(tmp_path, make_data(tmp_path, test_rows=None, val_fraction=0.2))

    manifest = json.loads((tmp_path / "run" / "noise.json").read_text())
    archive = np.load(tmp_path / "run" / "noisy_labels.npz")
    assert (manifest["realized_rate"], manifest["transition_counts"], manifest["num_samples"]) == (None, None, 48)
    assert archive.files == ["noisy", "row"]
    assert {"val/acc", "train/conf/all"} <= set(seen)
    assert not {"test/acc", "train/conf/clean"} & set(seen)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["realized_noise_rate"] is None


def test_a_run_without_any_evaluation(tmp_path):
    trainer, seen = fit(tmp_path, make_data(tmp_path, test_rows=None))

    assert trainer.global_step == 3 * 8
    assert "train/loss" in seen
    assert not {"val/acc", "test/acc"} & set(seen)


def test_a_linear_head_learns_from_noisy_labels(tmp_path):
    write_features(tmp_path / "f.npz", 1000, 300, width=20)
    data = FeaturesDataModule(tmp_path / "f.npz", SymmetricNoise(0.4), batch_size=50, seed=0, test_rows=300)
    module = make_module(hidden=())
    assert isinstance(module.network.backbone, MLP)
    trainer = make_trainer(tmp_path, max_epochs=5)
    trainer.fit(module, datamodule=data)

    assert trainer.callback_metrics["test/acc"] > 0.8


CONFIG = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    "model": {
        "class_path": "lightning_noisy.NoisyLabelModule",
        "init_args": {
            "num_classes": 10,
            "backbone": {"class_path": "lightning_noisy.networks.MLP", "init_args": {"in_features": 20, "hidden": [8]}},
            "head": {"class_path": "lightning_noisy.heads.LinearHead"},
            "loss": {"class_path": "torch.nn.CrossEntropyLoss"},
        },
    },
    "data": {
        "class_path": "lightning_noisy.data.FeaturesDataModule",
        "init_args": {
            "path": "f.npz",
            "test_rows": 20,
            "noise": {
                "class_path": "lightning_noisy.data.FileNoise",
                "init_args": {"path": "human.npz", "key": "worse"},
            },
        },
    },
}


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    isolate(monkeypatch, tmp_path)
    write_features("f.npz", 40, 20, width=20)
    np.savez("human.npz", worse=np.arange(40) % 10)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))

    cli = quiet("fit", "config.yaml", "--model.backbone.hidden", "[]")
    assert cli.model.network.backbone.num_features == 20
    assert cli.datamodule.noisy_targets.tolist() == (np.arange(40) % 10).tolist()
    assert "test/acc" in cli.trainer.callback_metrics

    message = command_line_error(capsys, "config.yaml", "--data.path", "human.npz")
    assert message.startswith("Expected the file 'human.npz' to hold an array `x`, but got `worse`: save it under")
    message = command_line_error(
        capsys, "config.yaml", "--data.test_rows", "null", "--untrained", "true", subcommand="test"
    )
    assert "labels, one per training sample, shape (60,), but got shape (40,)" in message


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "f.csv"}, "Expected argument `path` to be a .npz or .pt or .npy file, but got 'f.csv'."),
        ({"path": "f"}, "Expected argument `path` to be a .npz or .pt or .npy file, but got 'f'."),
        ({"path": "f.npy"}, "Expected argument `labels` to be the file of the labels, as a .npy `path` holds none"),
        ({"labels": "y.txt"}, "Expected argument `labels` to be a .npz or .pt or .npy file, but got 'y.txt'."),
        ({"test_path": "t.txt"}, "Expected argument `test_path` to be a .npz or .pt file, but got 't.txt'."),
        ({"test_path": "t.npy"}, "Expected argument `test_path` to be a .npz or .pt file, but got 't.npy'."),
        ({"labels_key": "y"}, "Expected argument `labels_key` to be None without `labels`, but got 'y'."),
        ({"test_rows": 0}, "Expected argument `test_rows` to be an int of at least 1, or None, but got 0."),
        ({"test_rows": -3}, "Expected argument `test_rows` to be an int of at least 1, or None, but got -3."),
        (
            {"test_rows": 3, "test_path": "t.npz"},
            "Expected argument `test_rows` to be None beside `test_path`, but got",
        ),
        ({"num_classes": 1}, "Expected argument `num_classes` to be an integer of at least 2, but got 1."),
        ({"batch_size": 0}, "Expected argument `batch_size` to be an int of at least 1, but got 0."),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(NoisyLabelError) as error:
        FeaturesDataModule(**{"path": "f.npz", **options})
    assert str(error.value).startswith(message)


def broken(value, place=(4, 2)):
    x = X.astype(np.float64)
    x[place] = value
    x[7, 1] = value
    return x


FILES = {
    "no x": ({"y": Y, "features": X}, {}, "an array `x`, but got `y`, `features`: save it under this name"),
    "no y": ({"x": X, "label": Y}, {}, "an array `y`, but got `x`, `label`: "),
    "nothing": ({}, {}, "an array `x`, but got no array: "),
    "no y_test": ({"x": X, "y": Y, "x_test": X}, {}, "an array `y_test`, but got `x`, `y`, `x_test`: "),
    "no x_test": ({"x": X, "y": Y, "y_test": Y}, {}, "an array `x_test`, but got `x`, `y`, `y_test`: "),
    "images": (
        {"x": X.reshape(SAMPLES, 1, WIDTH), "y": Y},
        {},
        "features `x` of shape (N, D), but got shape (24, 1, 5): ",
    ),
    "vector": ({"x": X[:, 0], "y": Y}, {}, "features `x` of shape (N, D), but got shape (24,): "),
    "no rows": ({"x": X[:0], "y": Y[:0]}, {}, "features `x` of shape (N, D), but got shape (0, 5): "),
    "no columns": ({"x": X[:, :0], "y": Y}, {}, "features `x` of shape (N, D), but got shape (24, 0): "),
    "width": (
        {"x": X, "y": Y, "x_test": X[:, 1:], "y_test": Y},
        {},
        "features `x_test` of shape (N, 5), but got shape (24, 4",
    ),
    "words": ({"x": X.astype(str), "y": Y}, {}, "numbers in `x`, but got dtype <U"),
    "complex": (
        {"x": X.astype(complex), "y": Y},
        {},
        "numbers in `x`, but got dtype complex128: save features as floats",
    ),
    "NaN": (
        {"x": broken(np.nan), "y": Y},
        {},
        "features `x` that are finite in float32, but got 2 that are not, the first in row 4",
    ),
    "infinite": (
        {"x": broken(-np.inf, (0, 0)), "y": Y},
        {},
        "features `x` that are finite in float32, but got 2 that are not, the first in row 0",
    ),
    "too large": ({"x": broken(1e39), "y": Y}, {}, "features `x` that are finite in float32, but got 2 that are not"),
    "NaN in test": ({"x": X, "y": Y, "x_test": broken(np.nan), "y_test": Y}, {}, "features `x_test` that are finite"),
    "lengths": ({"x": X, "y": Y[1:]}, {}, "labels `y`, one per row of `x`, shape (24,), but got shape (23,): "),
    "one-hot": (
        {"x": X, "y": np.eye(4)[Y]},
        {},
        "labels `y`, one per row of `x`, shape (24,), but got shape (24, 4): ",
    ),
    "lengths of clean": (
        {"x": X, "y": Y, "clean": Y[1:]},
        {},
        "labels `clean`, one per row of `x`, shape (24,), but got",
    ),
    "lengths in test": (
        {"x": X, "y": Y, "x_test": X[:9], "y_test": Y},
        {},
        "labels `y_test`, one per row of `x_test`, shape (9,)",
    ),
    "floats": ({"x": X, "y": Y.astype(float)}, {}, "integer labels `y`, but got dtype float64: "),
    "negative": (
        {"x": X, "y": Y.astype(int) - 1},
        {},
        "labels `y` from 0 on, but got -1 at position",
    ),
    "outside": ({"x": X, "y": Y}, {"num_classes": 3}, "labels `y` in [0, 3), but got 3 at position"),
    "two test sets": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y},
        {"test_rows": 3},
        "no test set beside `test_path` or `test_rows`, but got one, and 3",
    ),
    "two test files": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y},
        {"test_path": "t.npz"},
        "no test set beside `test_path` or `test_rows`, but got one, and 't.npz'",
    ),
}


@pytest.mark.parametrize(
    ("case", "suffix"),
    [(case, suffix) for case in FILES for suffix in (".npz", ".pt") if (case, suffix) != ("words", ".pt")],
)
def test_a_file_without_such_features_is_refused(tmp_path, case, suffix):
    arrays, options, message = FILES[case]
    path = tmp_path / f"f{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)

    refused(lambda: ready(path, **options), f"Expected the file '{path}' to hold {message}")


def refused(action, message):
    with pytest.raises(NoisyLabelError) as error:
        action()
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_errors_name_the_other_file(path, tmp_path):
    np.save(tmp_path / "y.npy", Y[1:])
    np.savez(tmp_path / "t.npz", x=X)

    refused(
        lambda: ready(path, labels=tmp_path / "y.npy"),
        f"Expected the file '{tmp_path}/y.npy' to hold labels, one per row of `x`, shape (24,), but got shape (23,): ",
    )
    refused(
        lambda: ready(path, test_path=tmp_path / "t.npz"),
        f"Expected the file '{tmp_path}/t.npz' to hold an array `y`, but got `x`: ",
    )


@pytest.mark.parametrize("argument", ["path", "labels", "test_path"])
def test_missing_files_are_named_by_their_argument(path, argument):
    missing = str(path.with_name("nowhere.npz"))
    wanted = "labels" if argument == "labels" else "features"

    data = FeaturesDataModule(**{"path": path, argument: missing})
    message = f"Expected the file '{missing}' to hold {wanted}, but got no such file: check `{argument}`, relative"
    refused(lambda: data.setup("fit"), message)


def test_labels_are_picked_by_their_key(path):
    np.savez(path.with_name("l.npz"), a=Y, b=Y)

    wanted = f"Expected the file '{path.with_name('l.npz')}' to hold"
    refused(
        lambda: ready(path, labels=path.with_name("l.npz")), f"{wanted} one array, but got 'a', 'b': set `labels_key`"
    )


@pytest.mark.parametrize("rows", [SAMPLES, SAMPLES + 1])
def test_test_rows_leave_some_for_training(path, rows):
    message = f"Expected argument `test_rows` to be less than all {SAMPLES} rows, but got {rows}."
    refused(lambda: ready(path, test_rows=rows), message)


def test_one_class_is_none(tmp_path):
    np.savez(tmp_path / "f.npz", x=X, y=np.zeros(SAMPLES, dtype=int))
    refused(
        lambda: ready(tmp_path / "f.npz"), "Expected argument `num_classes` to be an integer of at least 2, but got 1"
    )
    assert ready(tmp_path / "f.npz", num_classes=2).num_classes == 2


def test_a_label_out_of_place_is_named(tmp_path):
    y = Y.astype(np.int64)
    y[5] = 12
    np.savez(tmp_path / "f.npz", x=X, y=y)
    data = ready(tmp_path / "f.npz")
    assert (data.num_classes, data.largest_label) == (13, "the label 12 at position 5 of `y`")
    y[5] = 2**40
    np.savez(tmp_path / "f.npz", x=X, y=y)
    refused(
        lambda: ready(tmp_path / "f.npz"), "Expected labels that count classes, but got the label 1099511627776 at pos"
    )


def test_nothing_is_read_before_setup():
    data = FeaturesDataModule("nowhere.npz", labels="nowhere.npy", test_path="nowhere.pt")
    data.prepare_data()


def views_of(path, **options):
    images, _, index = zip(*ready(path, **options).train_dataloader(), strict=True)
    order = torch.cat(index).argsort()
    return [torch.cat(view)[order] for view in zip(*images, strict=True)]


def test_views_add_noise_after_standardization(tmp_path):
    wide = np.random.default_rng(0).normal(3, 20, size=(60, 400)).astype(np.float32)
    np.savez(tmp_path / "wide.npz", x=wide, y=np.arange(60) % 4)
    options = {"views": ["weak", "strong"], "noise_std": 0.5, "strong_dropout": 0.25}
    weak, strong = views_of(tmp_path / "wide.npz", **options)
    exact = torch.from_numpy((wide - wide.mean(axis=0)) / wide.std(axis=0))
    kept = strong != 0
    assert abs(kept.float().mean() - 0.75) < 0.02
    for noise in ((weak - exact), (strong - exact)[kept]):
        assert abs(noise.mean()) < 0.02
        assert abs(noise.std() - 0.5) < 0.02
    assert abs(np.corrcoef((weak - exact)[kept], (strong - exact)[kept])[0, 1]) < 0.05
    again = views_of(tmp_path / "wide.npz", batch_size=1, **options)
    assert all(map(torch.equal, again, (weak, strong)))
    scored = torch.cat([x for x, _, _ in ready(tmp_path / "wide.npz", **options).scoring_loader()])
    torch.testing.assert_close(scored, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"noise_std": -1.0}, "noise_std"), ({"strong_dropout": 1.0}, "strong_dropout"), ({"views": []}, "views")],
)
def test_views_that_cannot_be_made_are_refused(path, options, name):
    with pytest.raises(NoisyLabelError, match=f"`{name}`"):
        FeaturesDataModule(path, **options)
