import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lightning_noisy import NoisyLabelError
from lightning_noisy.callbacks import SELC, GradientSwitching, LabelWriter, MixUp
from lightning_noisy.data import FileNoise, IndexedDataset
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module


def labels_of(path):
    with np.load(path, allow_pickle=False) as file:
        assert file.files == ["labels", "row"]
        assert file["labels"].dtype == np.int64
        return torch.from_numpy(file["labels"])


def fit(folder, callbacks, data, **options):
    make_trainer(folder, callbacks, 3, **options).fit(make_module(nn.CrossEntropyLoss()), datamodule=data)


@pytest.mark.parametrize("order", [1, -1])
def test_the_maximum_of_selcs_table_starts_another_run(tmp_path, order):
    selc, data = SELC(momentum=0.1), SmallDataModule(seed=0, val_fraction=0.0)
    fit(tmp_path, [LabelWriter("corrected.npz"), selc][::order], data)
    labels = labels_of(tmp_path / "corrected.npz")
    assert torch.equal(labels, selc.section.stores["target"].values.argmax(1))
    assert 0 < (labels != data.noisy_targets).sum() < len(labels)
    second = SmallDataModule(FileNoise(tmp_path / "corrected.npz"), seed=0, val_fraction=0.0)
    second.setup("fit")
    assert torch.equal(second.noisy_targets, labels)


def test_without_changers_they_are_the_given_ones_also_of_samples_never_seen(tmp_path):
    data = SmallDataModule(seed=0)
    logger = TensorBoardLogger(tmp_path, name="run")
    fit(tmp_path, [LabelWriter()], data, limit_train_batches=1, logger=logger)
    assert torch.equal(labels_of(tmp_path / "run" / "version_0" / "labels.npz"), data.noisy_targets)


@pytest.mark.parametrize("mixed", [False, True])
def test_of_labels_that_are_drawn_it_writes_what_the_draws_have_come_to(tmp_path, mixed):
    """Clean, separable samples keep their labels, though every fifth of their last draws was another one."""
    labels = torch.arange(400) % 4
    samples = 8 * nn.functional.one_hot(labels, 6) + torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    drawn = {}

    class Watched(ForeignModule):
        def __init__(self):
            super().__init__()
            self.criterion.register_forward_hook(lambda _, args, __: drawn.update(last=args[1]))

        def on_train_batch_end(self, outputs, batch, batch_idx):
            drawn.setdefault("targets", torch.empty(400, dtype=torch.int64))[batch[2]] = (
                drawn["last"] if drawn["last"].ndim == 1 else drawn["last"].argmax(dim=1)
            )

    torch.manual_seed(0)
    switching, changers = GradientSwitching(seed=0), [MixUp(0.9)] if mixed else []
    trainer = make_trainer(tmp_path, [LabelWriter(), *changers, switching], 20)
    trainer.fit(Watched(), make_loader(IndexedDataset(TensorDataset(samples, labels)), batch_size=50))
    assert (drawn["targets"] != labels).float().mean() > 0.1
    written = labels_of(tmp_path / "labels.npz")
    assert torch.equal(written, switching.section.stores["pool"].values.argmax(dim=1))
    assert torch.equal(written, labels)


class Opaque(Dataset):
    """Tells no labels without loading samples."""

    def __init__(self):
        self.x, self.y, _ = make_tensors()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], self.y[index], index


def test_labels_that_nobody_knows_are_not_made_up(tmp_path):
    trainer = make_trainer(tmp_path, [LabelWriter()])
    trainer.fit(ForeignModule(), make_loader(Opaque()))
    assert torch.equal(labels_of(tmp_path / "labels.npz"), Opaque().y)
    other = tmp_path / "other"
    with pytest.warns(UserWarning, match=r"LabelWriter writes no file: 16 of 24 samples were never seen"):
        make_trainer(other, [LabelWriter()], limit_train_batches=1).fit(ForeignModule(), make_loader(Opaque()))
    assert not other.exists() or not list(other.rglob("*.npz"))


def test_a_dry_run_leaves_the_labels_of_another_alone(tmp_path):
    path = tmp_path / "labels.npz"
    path.write_bytes(b"those of a real run")
    fit(tmp_path, [LabelWriter(str(path))], SmallDataModule(seed=0), fast_dev_run=True)
    assert path.read_bytes() == b"those of a real run"


def test_refused_path():
    with pytest.raises(NoisyLabelError, match=r"`path` to be the name of a \.npz file, but got 'labels\.npy'"):
        LabelWriter("labels.npy")


@pytest.mark.parametrize("there", [True, False], ids=["folder of that name", "file above"])
def test_a_file_that_cannot_be_written_is_found_at_the_start(tmp_path, there):
    (tmp_path / "labels.npz").mkdir() if there else (tmp_path / "taken").write_text("")
    before = sorted(tmp_path.rglob("*"))
    module, path = ForeignModule(), "labels.npz" if there else "taken/new/labels.npz"
    with pytest.raises(NoisyLabelError, match=r"Cannot write '.*labels.npz', argument `path`: "):
        make_trainer(tmp_path, [LabelWriter(path)]).fit(module, make_loader(Opaque()))
    assert module.trainer.global_step == 0
    assert sorted(tmp_path.rglob("*")) == before
