"""What is kept of each sample, against what a classifier was seen to say."""

from __future__ import annotations

import copy
import html
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import Dataset, TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop, Storage
from lightning_noisy.callbacks import ConfidenceTracker, LabelIssueReport, MemorizationTracker, TrainingDynamics
from lightning_noisy.data import IndexedDataset
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.small import SmallDataModule, assert_same, make_module


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


def fit(folder, epochs=4, given=None, module=None, dynamics=None):
    x, noisy, _ = make_tensors()
    given = noisy if given is None else given
    torch.manual_seed(0)
    spy, dynamics = Spy(), dynamics or TrainingDynamics()
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


def test_a_folder_has_all_of_it(tmp_path):
    rows = str(tmp_path / "rows")
    plain, filed = fit(tmp_path)[2], fit(tmp_path, dynamics=TrainingDynamics(storage=Storage(folder=rows)))[2]
    again = TrainingDynamics(storage=Storage(folder=rows))
    again.section.load_state_dict(filed.section.state_dict())
    for dynamics in (filed, again):
        for name, column in plain.table().items():
            assert np.array_equal(dynamics.table()[name], column, equal_nan=column.dtype.kind == "f"), name
        assert np.array_equal(dynamics.beliefs(), plain.beliefs())
        assert np.array_equal(dynamics.curves(), plain.curves())
    maps = Path("/proc/self/maps")
    if maps.exists():
        held = (*plain.dynamics.table.rows, *plain.dynamics.curves)
        assert maps.read_text().count(f"{rows}/.") == 1 + 2 * len(held)  # and the visits, which a load does not place


class OneClass(ForeignModule):
    """Predicts one class of four, whatever it is given."""

    def forward(self, x):
        return super().forward(x) * 0.01 + torch.tensor([9.0, 0, 0, 0])


def test_a_class_that_is_given_up_is_said(tmp_path, recwarn):
    given = torch.tensor([0] * 12 + [1] * 6 + [3] * 6)
    _, _, dynamics = fit(tmp_path, 1, given, OneClass(), LabelIssueReport(pictures=False))
    (said,) = [str(one.message) for one in recwarn if "never predicted" in str(one.message)]
    assert said.startswith("2 classes are (almost) never predicted, though 50% of the labels are theirs: 1, 3.")
    assert html.escape(said) in (tmp_path / "label_issues" / "report.html").read_text()
    assert dynamics.lost == [1, 3]
    assert dynamics.collapse(["a", "b", "c", "d"]).startswith("2 classes are (almost) never predicted, though 50%")


@pytest.mark.parametrize("tracker", [ConfidenceTracker, MemorizationTracker])
def test_trackers_say_once_which_class_is_given_up(tracker, tmp_path, recwarn):
    given = torch.tensor([0] * 12 + [1] * 6 + [3] * 6)
    loader = make_loader(IndexedDataset(TensorDataset(make_tensors()[0], given)))
    make_trainer(tmp_path, [tracker(clean_targets=given), TrainingDynamics()], 1).fit(OneClass(), loader)
    (said,) = [str(one.message) for one in recwarn if "never predicted" in str(one.message)]
    assert said.startswith("2 classes are (almost) never predicted, though 50% of the labels are theirs: 1, 3.")
    recwarn.clear()
    make_trainer(tmp_path, [tracker(clean_targets=given)], 30).fit(ForeignModule(), loader)
    assert not [one for one in recwarn if "never predicted" in str(one.message)]


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


class Blurred(Dataset):
    """A training set whose images are never twice the same, with labels that it tells or not."""

    def __init__(self, x, y, told=True):
        self.x, self.y = x, y
        if told:
            self.targets = y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index] + torch.randn(6), self.y[index]


class NormedModule(ForeignModule):
    """Dropout and batch norm, so that training and evaluation differ."""

    def __init__(self):
        super().__init__(dropout=0.5)
        self.body.append(torch.nn.BatchNorm1d(8))

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])


class ByHand(Callback):
    """What the network says of every sample after an epoch, and how it was left by others."""

    def __init__(self, x):
        self.x, self.logits, self.states = x, [], []

    def on_validation_start(self, trainer, pl_module):
        self.note(pl_module)  # the last hook before the epoch's end

    def on_train_epoch_end(self, trainer, pl_module):
        self.note(pl_module)
        modes = [part.training for part in pl_module.modules()]
        with torch.no_grad():
            self.logits.append(copy.deepcopy(pl_module).eval()(self.x.double()))
        assert modes[2:4] == [True, True]

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.note(pl_module)

    def note(self, module):
        self.states.append((copy.deepcopy(module.state_dict()), torch.get_rng_state()))


def test_without_augmentation_it_is_a_pass_by_hand(tmp_path):
    """Figures are those of a pass in evaluation mode, and training is the same as without it."""
    x, given, _ = make_tensors()

    def trained(*callbacks):
        torch.manual_seed(0)
        by_hand, module = ByHand(x), NormedModule()
        loader = make_loader(Blurred(x, given), batch_size=5, shuffle=True)
        make_trainer(tmp_path, [*callbacks, by_hand], 3, precision="64-true").fit(module, loader)
        return by_hand

    dynamics = TrainingDynamics(unaugmented=TensorDataset(x, given))
    by_hand = trained(dynamics)
    logits = torch.stack(by_hand.logits)
    confidence = logits.softmax(2)[:, torch.arange(24), given].numpy()
    table = dynamics.table()
    assert table["visits"].tolist() == [3] * 24
    assert np.allclose(table["confidence"], confidence.mean(0), atol=1e-6)
    assert np.allclose(table["final_confidence"], confidence[-1], atol=1e-6)
    assert np.allclose(dynamics.beliefs(), logits.log_softmax(2).mean(0), atol=1e-5)
    assert_same(by_hand.states, trained(TrainingDynamics()).states)


def test_without_augmentation_a_data_module_knows_its_images(tmp_path):
    """Every sample has a visit, also one that no batch of the epoch has, and the report has the same figures."""
    report, module = LabelIssueReport(unaugmented=True, pictures=False), make_module(torch.nn.CrossEntropyLoss())
    data = SmallDataModule(seed=0)
    make_trainer(tmp_path, [report], 1, limit_train_batches=2).fit(module, datamodule=data)
    images, given, _ = (torch.cat(column) for column in zip(*data.scoring_loader(), strict=True))
    with torch.no_grad():
        expected = module.eval()(images).softmax(1)[torch.arange(40), given]
    assert np.allclose(report.table()["confidence"], expected, atol=1e-6)
    assert report.table()["visits"].tolist() == [1] * 40
    assert copy.deepcopy(report).table()["visits"].tolist() == [1] * 40


class Chance(ForeignModule):
    def forward(self, x):
        return super().forward(x).softmax(1)

    def training_step(self, batch, batch_idx):
        return self.criterion(super().forward(batch[0]), batch[1])


class Probabilities(Chance):
    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])


class Encoder(ForeignModule):
    def forward(self, x):
        return self.body(x)

    def training_step(self, batch, batch_idx):
        return self.criterion(self.classifier(self(batch[0])), batch[1])


class Pairs(ForeignModule):
    def forward(self, x):
        return super().forward(x), x

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0])[0], batch[1])


class NoForward(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("module", "unaugmented", "line"),
    [
        (NormedModule, True, r"finds no training set without augmentation: give it, `unaugmented=dataset`, or"),
        (NormedModule, 23, "TrainingDynamics looks at each of 24 training samples, but the loader reads 23"),
        (NormedModule, -24, r"other labels than TrainingDynamics saw in training, among samples \[0, 1, 2, 3, 4\]"),
        (NoForward, 24, "asks NoForward for logits, which has no `forward`"),
        (Chance, 24, "needs finite logits of Chance, but `forward` returns probabilities"),
        (Encoder, 24, r"whose `forward` returns \(5, 8\), but the criterion gets 4 classes: return these"),
        (Probabilities, 24, "`criterion` gets probabilities, and whoever looks at it would take their softmax again"),
        (Pairs, 24, r"needs logits \(B, K\) of Pairs, whose `forward` returns a tuple"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_cannot_be_looked_at_is_refused(tmp_path, module, unaugmented, line, known):
    x, given, _ = make_tensors()
    if unaugmented is not True:
        labels = given if unaugmented > 0 else (given + 1) % 4
        unaugmented = TensorDataset(x[: abs(unaugmented)], labels[: abs(unaugmented)])
    training = IndexedDataset(Blurred(x, given, known))
    with pytest.raises(NoisyLabelError, match=line):
        make_trainer(tmp_path, [TrainingDynamics(unaugmented)], 1).fit(module(), make_loader(training, 5))


def test_a_loop_of_ones_own_hands_on_the_logits_of_its_own_pass():
    x, given, _ = make_tensors()
    dynamics, module = TrainingDynamics(TensorDataset(x, given)), torch.nn.Linear(6, 4)
    noisy = NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), [dynamics], TensorDataset(x, given))
    with pytest.raises(NoisyLabelError, match=r"hand the logits of a pass without augmentation to `NoisyLoop\.update`"):
        noisy.update(torch.randn(24, 4), given, torch.arange(24), 0)
