"""What is kept of each sample, against what a classifier was seen to say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop
from lightning_noisy.callbacks import TrainingDynamics
from lightning_noisy.data import IndexedDataset
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer


class Spy(Callback):
    """Logits of every sample, epoch by epoch."""

    def __init__(self):
        self.logits = {}

    def on_fit_start(self, trainer, pl_module):
        def note(module, args, output):
            rows = self.logits.setdefault(trainer.current_epoch, torch.full((24, 4), float("nan"), dtype=torch.float64))
            rows[self.index] = output.detach().double()

        self.handle = pl_module.classifier.register_forward_hook(note)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.index = batch[2]

    def on_fit_end(self, trainer, pl_module):
        self.handle.remove()


def fit(folder, epochs=4, given=None, module=None):
    x, noisy, _ = make_tensors()
    given = noisy if given is None else given
    torch.manual_seed(0)
    spy, dynamics = Spy(), TrainingDynamics()
    loader = make_loader(IndexedDataset(TensorDataset(x, given)), batch_size=5, shuffle=True)
    make_trainer(folder, [spy, dynamics], epochs).fit(module or ForeignModule(), loader)
    return torch.stack(list(spy.logits.values())), given, dynamics


def test_a_foreign_project(tmp_path):
    logits, given, dynamics = fit(tmp_path)
    rows = torch.arange(24)
    confidence = logits.softmax(2)[:, rows, given].numpy()
    others = logits.clone()
    others[:, rows, given] = -torch.inf
    margin = (logits[:, rows, given] - others.amax(2)).numpy()
    table = dynamics.table()
    assert table["visits"].tolist() == [4] * 24
    assert np.allclose(table["confidence"], confidence.mean(0), atol=1e-6)
    assert np.allclose(table["variability"], confidence.std(0), atol=1e-5)
    assert np.allclose(table["trend"], np.polyfit(np.arange(4), confidence, 1)[0], atol=1e-6)
    assert np.allclose(table["final_confidence"], confidence[-1], atol=1e-6)
    assert np.allclose(table["margin"], margin.mean(0), atol=1e-5)
    assert np.allclose(dynamics.curves(), confidence.T, atol=0.5 / 254 + 1e-6)
    right = (logits.argmax(2) == given).numpy()
    assert table["forgotten"].tolist() == (right[:-1] & ~right[1:]).sum(0).tolist()
    assert table["last_prediction"].tolist() == logits[-1].argmax(1).tolist()
    predicted = [len(set(epoch.argmax(1).tolist())) for epoch in logits]
    assert [seen["train/classes_predicted"] for seen in dynamics.history.values()] == predicted
    copied = copy.deepcopy(dynamics)
    dynamics.dynamics.table.rows["confidence"].zero_()
    assert np.array_equal(copied.table()["confidence"], table["confidence"])


class OneClass(ForeignModule):
    """Predicts one class of four, whatever it is given."""

    def forward(self, x):
        return super().forward(x) * 0.01 + torch.tensor([9.0, 0, 0, 0])


def test_a_class_that_is_given_up_is_said(tmp_path, recwarn):
    given = torch.tensor([0] * 12 + [1] * 6 + [3] * 6)
    _, _, dynamics = fit(tmp_path, 1, given, OneClass())
    (said,) = [str(one.message) for one in recwarn if "never predicted" in str(one.message)]
    assert said.startswith("2 classes are (almost) never predicted, though 50% of the labels are theirs: 1, 3.")
    assert dynamics.lost == [1, 3]
    assert dynamics.collapse(["a", "b", "c", "d"]).startswith("2 classes are (almost) never predicted, though 50%")


def test_an_epoch_that_was_cut_short_is_no_collapse(tmp_path, recwarn):
    x, _, clean = make_tensors()
    torch.manual_seed(0)
    loader = make_loader(IndexedDataset(TensorDataset(x, clean)), batch_size=2)
    dynamics = TrainingDynamics()
    make_trainer(tmp_path, [dynamics], 40, max_steps=12 * 30 + 3).fit(ForeignModule(), loader)
    assert dynamics.dynamics.table.counts()[1].sum() == 24
    assert not [one for one in recwarn if "never predicted" in str(one.message)]


def test_a_network_that_knows_all_classes_says_nothing(tmp_path, recwarn):
    _, _, dynamics = fit(tmp_path, 30)
    assert dynamics.lost == []
    assert not [one for one in recwarn if "never predicted" in str(one.message)]


def test_a_loop_of_ones_own():
    x, given, _ = make_tensors()
    dynamics, module = TrainingDynamics(), torch.nn.Linear(6, 4)
    noisy = NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), [dynamics], TensorDataset(x, given))
    with pytest.raises(NoisyLabelError, match="no epoch to its end"):
        dynamics.table()
    logits = torch.randn(3, 24, 4)
    for epoch in range(3):
        noisy.update(logits[epoch, :20], given[:20], torch.arange(20), epoch)
        noisy.end_epoch()
    table = dynamics.table()
    expected = logits.softmax(2)[:, torch.arange(20), given[:20]].mean(0)
    assert np.allclose(table["confidence"][:20], expected, atol=1e-6)
    assert np.isnan(table["confidence"][20:]).all()
    assert np.isnan(dynamics.curves()[20:]).all()
    assert table["visits"].tolist() == [3] * 20 + [0] * 4
