"""The classes that a network was trained on are in its checkpoint, and other ones are refused."""

import csv
import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_noisy import NoisyLabelModule
from lightning_noisy.callbacks import (
    ConfidenceTracker,
    LabelIssueReport,
    LabelWriter,
    PosteriorWriter,
    PredictionWriter,
)
from lightning_noisy.data import IndexedDataset
from lightning_noisy.errors import NoisyLabelError
from tests.foreign import ForeignModule, make_tensors, make_trainer
from tests.small import SmallDataModule, make_module

NAMES = ["ant", "=1+1", "two\nlines", os.fsdecode(b"\xff")]
SWAPPED = ["=1+1", "ant", *NAMES[2:]]


class Named(SmallDataModule):
    def __init__(self, names=NAMES, **options):
        super().__init__(seed=0, **options)
        self.class_names = names


class NamedSet(torch.utils.data.TensorDataset):
    def __init__(self, names):
        x, y, _ = make_tensors()
        super().__init__(x, y)
        self.classes = names


def fitted(folder, callbacks=()):
    trainer = make_trainer(folder, list(callbacks), max_epochs=1)
    trainer.fit(make_module(nn.CrossEntropyLoss()), datamodule=Named())
    trainer.save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_of_reordered_classes_is_refused(tmp_path, command):
    path = fitted(tmp_path)
    assert torch.load(path, weights_only=True)["callbacks"]["lightning_noisy"]["class_names"] == NAMES
    trainer, module = make_trainer(tmp_path, max_epochs=2), make_module(nn.CrossEntropyLoss())
    getattr(trainer, command)(module, datamodule=Named(), ckpt_path=path)
    trainer, module = make_trainer(tmp_path, max_epochs=2), make_module(nn.CrossEntropyLoss())
    with pytest.raises(NoisyLabelError, match=r"has 'ant' as class 0, which is '=1\+1' in these data"):
        getattr(trainer, command)(module, datamodule=Named(SWAPPED), ckpt_path=path)


def test_weights_that_python_loads_are_not_evaluated_on_other_classes_but_may_be_trained_on_them(tmp_path):
    path, started = fitted(tmp_path), make_module(nn.CrossEntropyLoss())
    parts = started.network.backbone, lambda *_: started.network.head, nn.CrossEntropyLoss()
    module = NoisyLabelModule.load_from_checkpoint(path, backbone=parts[0], head=parts[1], loss=parts[2])
    with pytest.raises(NoisyLabelError, match="trained on other classes"):
        make_trainer(tmp_path).test(module, datamodule=Named(SWAPPED))
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=Named(SWAPPED))
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    make_trainer(tmp_path).test(module, datamodule=Named(SWAPPED), ckpt_path=tmp_path / "tuned.ckpt", verbose=False)


def test_loaders_of_a_foreign_project_are_held_to_it_as_well(tmp_path):
    def fit(names, ckpt_path=None):
        trainer = make_trainer(tmp_path, [ConfidenceTracker()], max_epochs=1 + (ckpt_path is not None))
        trainer.fit(ForeignModule(), DataLoader(IndexedDataset(NamedSet(names)), 8), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "run.ckpt")

    fit(NAMES)
    fit(NAMES, tmp_path / "run.ckpt")
    with pytest.raises(NoisyLabelError, match="trained on other classes"):
        fit(SWAPPED, tmp_path / "run.ckpt")


def test_files_of_a_run_name_rows_and_classes(tmp_path):
    fitted(tmp_path, [LabelWriter(), PosteriorWriter(), LabelIssueReport()])
    data = Named()
    data.setup("fit")
    rows = data.sources
    assert sorted(set(range(48)) - set(rows.tolist())) != []  # the validation split lies in between
    assert torch.equal(data.training_images().labels[rows], data.clean_targets)
    with (tmp_path / "label_issues" / "label_issues.csv").open(newline="", encoding="utf-8") as file:
        listed = {int(row["row"]): row["given"] for row in csv.DictReader(file)}
    shown = ["ant", "'=1+1", "two\nlines", "?"]
    assert listed == {row: shown[label] for row, label in zip(rows.tolist(), data.noisy_targets.tolist(), strict=True)}
    for name in ("labels.npz", "posterior.npz", "label_issues/suggested_labels.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as file:
            assert np.array_equal(file["row"], rows)
            assert file["class_names"].tolist() == NAMES


def test_predictions_are_named_by_the_checkpoint(tmp_path):
    path = fitted(tmp_path)
    trainer = make_trainer(tmp_path, [PredictionWriter()])
    trainer.predict(make_module(nn.CrossEntropyLoss()), datamodule=Named(None), ckpt_path=path)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        assert file["class_names"].tolist() == NAMES
        assert file["predicted"].tolist() == [NAMES[i] for i in file["probabilities"].argmax(axis=1)]
        assert file["row"].tolist() == list(range(16))
    assert not (tmp_path / "predictions.csv").exists()
