"""The list of wrong labels at the end of training."""

from __future__ import annotations

import copy
import csv
import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop
from lightning_noisy.callbacks import LabelIssueReport
from lightning_noisy.callbacks.label_issue_report import _of_sample
from lightning_noisy.data import FileNoise, SymmetricNoise
from lightning_noisy.functional.label_posterior import label_posterior
from lightning_noisy.reports import write_page
from lightning_noisy.reports.from_dynamics import issues_from_dynamics
from lightning_noisy.reports.remarks import remarks_on, signs_of
from tests.distributed import WORLD_SIZE
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
from tests.reports.issues import four
from tests.small import SmallDataModule, make_module


def fit(folder, report=None, epochs=6, **options):
    x, given, clean = make_tensors(num_samples=60)
    torch.manual_seed(0)
    report = report or LabelIssueReport(clean_targets=clean)
    loader = make_loader(TensorDataset(x, given), batch_size=10, shuffle=True)
    make_trainer(folder, [report], epochs, **options).fit(Foreign(), loader)
    return report, given, clean


class Foreign(ForeignModule):
    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_line_in_a_foreign_project(tmp_path):
    report, given, clean = fit(tmp_path, epochs=6)
    folder, found = tmp_path / "label_issues", label_posterior(torch.tensor(report.beliefs()), given)
    rows = {int(row["row"]): row for row in rows_of(folder / "label_issues.csv")}
    assert sorted(rows) == list(range(60))
    by_rank = sorted(rows.values(), key=lambda row: int(row["rank"]))
    scores = [float(row["score"]) for row in by_rank]
    assert scores == sorted(scores, reverse=True)
    wrong = (found.wrong >= 0.5) & (found.best != given)
    assert wrong.any()
    for index, row in rows.items():
        assert float(row["score"]) == pytest.approx(float(found.wrong[index]), abs=1e-4)
        named = tuple(str(int(labels[index])) for labels in (given, found.best, clean))
        assert (row["given"], row["suggested"], row["truth"]) == named
        assert ("wrong" in row["flags"]) == wrong[index]
    corrected = torch.where(wrong, found.best, given).tolist()
    assert FileNoise(str(folder / "suggested_labels.npz")).corrupt(given, 4, 0).tolist() == corrected
    assert "60 samples, 4 classes" in (folder / "report.html").read_text()
    assert (folder / "cleanlab.npz").is_file()
    assert not (folder / "label_studio").exists()  # rows have no files


def test_a_loop_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, given, _ = make_tensors()
    module, report = torch.nn.Linear(6, 4), LabelIssueReport()
    noisy = NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), [report], TensorDataset(x, given))
    noisy.update(torch.randn(24, 4), given, torch.arange(24), 0)
    noisy.end_epoch()
    noisy.finish()
    assert len(rows_of(tmp_path / "label_issues" / "label_issues.csv")) == 24


def test_our_data_module_knows_its_truth(tmp_path):
    report = LabelIssueReport()
    trainer = make_trainer(tmp_path, [report], 2)
    trainer.fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0))
    truth = trainer.datamodule.clean_targets.numpy()
    assert np.array_equal(report.issues().truth, truth)


def test_labels_that_nobody_changed_are_not_the_truth(tmp_path):
    report = LabelIssueReport()
    trainer = make_trainer(tmp_path, [report], 1)
    trainer.fit(make_module(torch.nn.CrossEntropyLoss()), datamodule=SmallDataModule(seed=0, noise=SymmetricNoise(0.0)))
    assert report.issues().truth is None


def test_nothing_is_written_in_a_dry_run(tmp_path):
    fit(tmp_path, fast_dev_run=True)
    assert list(tmp_path.rglob("*.csv")) == []


def test_an_output_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "label_issues").write_text("")
    with pytest.raises(NoisyLabelError, match="argument `output`"):
        fit(tmp_path)


class Named(TensorDataset):
    """Says what its classes are called."""

    def __init__(self, *tensors, classes, tells=True):
        super().__init__(*tensors)
        self.classes = classes
        if tells:
            self.targets = tensors[1]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["=cat"], r"All samples are of the class '=cat': labels can be wrong where there are two classes\."),
        (["a", "b", "c"], r"names 3 classes, and has a label 3: name all classes\."),
    ],
)
def test_classes_that_cannot_be_ranked_are_refused_before_the_first_step(tmp_path, classes, said):
    x, given, _ = make_tensors()
    module, report = Foreign(), LabelIssueReport()
    trainer = make_trainer(tmp_path, [report])
    with pytest.raises(NoisyLabelError, match=said):
        trainer.fit(module, make_loader(Named(x, given, classes=classes)))
    assert trainer.global_step == 0


def test_labels_that_only_come_with_the_batches_are_refused_in_a_line_as_well(tmp_path):
    x, given, _ = make_tensors()
    with pytest.raises(NoisyLabelError, match="names 3 classes, and has a label 3"):
        make_trainer(tmp_path, [LabelIssueReport()]).fit(
            Foreign(), make_loader(Named(x, given, classes=["a", "b", "c"], tells=False))
        )


def dynamics(label, seen=None):
    count = len(label)
    names = ("trend", "variability", "final_confidence", "margin", "forgotten", "last_forgotten", "first_learned")
    return {
        **{name: np.zeros(count) for name in (*names, "confidence", "modal_share")},
        "last_prediction": np.array(label),
        "modal_prediction": np.array(label),
        "visits": np.full(count, 3) if seen is None else np.array(seen) * 3,
        "label": np.array(label),
    }


def test_a_class_without_labels_is_suggested_to_nobody():
    label = np.array([0] * 20 + [2] * 20)
    beliefs = np.log(np.where(np.arange(3) == 1, 0.6, 0.2) + np.zeros((40, 1))).astype(np.float32)
    given = np.arange(40).astype(str)
    issues = issues_from_dynamics(dynamics(label), beliefs, given, "row", ["a", "b", "c"])
    assert set(issues.suggested.tolist()) <= {0, 2}
    assert issues.probabilities[:, 1].max() == 0


def test_scores_are_posteriors():
    # Two classes of 100 samples whose network is sure; a tenth of the labels of class 0 is wrong, none of class 1.
    label = np.array([1] * 10 + [0] * 90 + [1] * 100 + [0, -1])
    truth = np.array([0] * 100 + [1] * 100 + [0, 0])
    beliefs = np.log(np.where(truth[:, None] == np.arange(3), 0.98, 0.01)).astype(np.float32)
    beliefs[-2] = np.log([0.001, 0.001, 0.998])  # an output that stands for no class, as an abstaining loss has one
    seen = [1] * 201 + [0]
    labels, rows = np.where(label < 0, 1, label), np.arange(202).astype(str)
    issues = issues_from_dynamics(dynamics(label, seen), beliefs, rows, "row", ["a", "b"], labels)
    expected = label_posterior(torch.tensor(beliefs[:-1, :2]), torch.tensor(label[:-1]))
    assert issues.score[:-1].tolist() == expected.wrong.tolist()
    assert np.flatnonzero(issues.wrong).tolist() == list(range(10))
    assert issues.corrected[:200].tolist() == truth[:200].tolist()
    assert (issues.score[-1], issues.flags[-1], issues.flags[-2]) == (0, "never seen", "")
    assert issues.noise_rate.share == pytest.approx(10 / 201, abs=0.01)
    bounds = (float((expected.wrong > limit).double().mean()) for limit in (0.9, 0.1))
    assert (issues.noise_rate.low, issues.noise_rate.high) == (next(bounds), max(expected.noise_rate, next(bounds)))
    assert issues.remarks == ()


@pytest.mark.parametrize(("late", "epoch", "still", "said"), [(2, 9, 1, 0), (6, 8, 1, 1), (6, 7, 1, 0), (6, 8, 0, 0)])
def test_a_network_that_has_learned_labels_by_heart_says_so(late, epoch, still, said):
    # Half of the samples learned in the second epoch; a sample that was never seen counts for nothing.
    rows, label = np.arange(101), np.array([0, 1] * 50 + [-1])
    seen = {**dynamics([*label[:100], 0], [1] * 100 + [0]), "label": label}
    seen["first_learned"] = np.where(rows < late, epoch, 1)
    seen["last_prediction"] = np.where(rows < late, still * label + (1 - still) * (1 - label), label)
    beliefs = np.log(np.where(label[:, None] == [0, 1], 0.99, 0.01)).astype(np.float32)
    remarks = issues_from_dynamics(seen, beliefs, rows.astype(str), "row", ["a", "b"], np.maximum(label, 0)).remarks
    assert len(remarks) == said
    assert all("learned 6% of the labels after epoch 8, half of all by epoch 2" in line for line in remarks)


@pytest.mark.parametrize(("late", "pointed_at", "said"), [(3, 0, 1), (3, 2, 0), (5, 3, 0), (6, 6, 1)])
def test_labels_that_were_learned_late_and_are_not_pointed_at_weigh_more(late, pointed_at, said):
    rows = np.arange(100)
    table = {**dynamics(rows % 2), "first_learned": np.where(rows < late, 9, 1)}
    assert len(remarks_on(signs_of(table, 0.0, rows < pointed_at))) == said


@pytest.mark.parametrize(("at_last", "said"), [(27, []), (28, ["The network contradicts 28% of the labels"])])
def test_a_network_that_knows_hardly_more_than_chance_says_so(at_last, said):
    label = np.arange(100) % 2  # each class is predicted for half of the samples: by chance 50 % are contradicted
    last = np.where(np.arange(100) < at_last, 1 - label, label)
    table = {**dynamics(label), "first_learned": np.arange(100), "last_prediction": last}
    lines = remarks_on(signs_of(table, 0.3, np.ones(100, bool)))
    assert [line.partition(" in the last epoch")[0] for line in lines] == said
    assert all("would contradict 50% if it knew nothing" in line for line in lines)


def test_more_wrong_labels_than_can_be_pointed_at_are_said():
    def remarks(called):
        return remarks_on(signs_of(dynamics(np.arange(200) % 2), 0.1, np.arange(200) < called))

    assert remarks(10) == []
    (remark,) = remarks(9)
    assert remark.startswith("10.0% of the labels are expected to be wrong, but only 4.5% can be pointed at")


def test_what_speaks_against_a_run_is_said_on_the_page_and_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, given, clean = make_tensors()
    module, report = torch.nn.Linear(6, 4), LabelIssueReport()
    noisy = NoisyLoop(module, torch.optim.SGD(module.parameters(), 0.1), [report], TensorDataset(x, given))
    for epoch, believed in enumerate((clean, clean, clean, clean, given)):
        noisy.update(6 * torch.eye(4)[believed], given, torch.arange(24), epoch)
        noisy.end_epoch()
    assert (clean != given).sum() > 1
    with pytest.warns(UserWarning, match="has probably learned wrong labels by heart"):
        noisy.finish()
    assert "has probably learned wrong labels by heart" in (tmp_path / "label_issues" / "report.html").read_text()


def test_expected_counts_add_up():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.beta(9, 2, 3000), rng.beta(2, 9, 2000)])
    given = rng.integers(0, 2, 5000)
    beliefs = np.log(np.where(given[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None]))
    issues = issues_from_dynamics(
        dynamics(given), beliefs.astype(np.float32), np.arange(5000).astype(str), "row", ["a", "b"]
    )
    right, wrong = issues.components.values()
    assert wrong.sum() == pytest.approx(issues.score.sum())
    np.testing.assert_allclose(right + wrong, np.histogram(issues.score, 50, (0, 1))[0], atol=1e-9)


def test_labels_that_were_learned_by_heart_are_ranked_all_the_same():
    """The network agrees with every label, and with the wrong ones a little less."""
    given = np.arange(400) % 4
    wrong = np.arange(400) % 40 == 7
    beliefs = np.full((400, 4), 1e-9)
    beliefs[np.arange(400), (given + 1) % 4] = np.where(wrong, 1e-4, 1e-8) * np.linspace(0.5, 1, 400)
    beliefs[np.arange(400), given] = 1 - beliefs.sum(axis=1) + 1e-9
    found = label_posterior(torch.tensor(np.log(beliefs)), torch.tensor(given)).wrong
    assert set(found.argsort(descending=True)[:10].tolist()) == set(np.flatnonzero(wrong).tolist())
    assert 0 < float(found.mean()) < 0.02


@pytest.mark.parametrize("told", [True, False])
def test_samples_that_were_never_shown_keep_their_labels_or_are_left_out(told, tmp_path):
    label = np.array([1, 0] * 20 + [-1, -1])
    table = {**dynamics(label, [1] * 40 + [0, 0]), "label": label}
    labels = np.array([1, 0] * 20 + [1, 0]) if told else None
    beliefs = np.log(np.where(label[:, None] == [0, 1], 0.9, 0.1)).astype(np.float32)
    given = (table, beliefs, np.array([f"{i}.png" for i in range(42)]), "path", ["a", "b"], labels)
    truth, curves = np.array([1, 0] * 21), np.ones((42, 3), np.float32)
    issues = issues_from_dynamics(*given, truth, (), curves, [1])
    assert ["class never predicted" in flags for flags in issues.flags] == (issues.given == 1).tolist()
    assert issues.given.tolist() == issues.corrected.tolist() == [1, 0] * (21 if told else 20)
    assert issues.columns["modal_prediction"].tolist()[40:] == ([""] * 2 if told else [])
    assert issues.columns["last_prediction"].tolist()[:40] == ["b", "a"] * 20
    said = "2 samples were never seen, and nobody tells their labels: they are left out."
    assert (said in issues.remarks) is not told
    assert issues.position(39) == 39


def test_pictures_stand_beside_their_own_samples(tmp_path):
    """Where some are left out, and where one cannot be read."""
    issues = replace(four(), positions=np.array([5, 6, 7, 9]))
    asked = []
    write_page(tmp_path / "r.html", issues, "data", lambda row: asked.append(row))
    assert set(asked) == {5, 6, 7, 9}

    class Photos(TensorDataset):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("file gone")
            return (Image.new("L", (2, 2), index), 0) if index % 2 else {"image": 0}

    shown = partial(_of_sample, Photos(torch.zeros(8)), None)
    assert [shown(row) is None for row in range(6)] == [True, False, True, True, True, False]
    files = partial(_of_sample, Photos(torch.zeros(8)), lambda row: Image.new("L", (9, 9)))
    assert [files(row).size for row in (1, 2, 3)] == [(2, 2), (9, 9), (9, 9)]


def test_a_copy_knows_what_the_classes_are_called(tmp_path):
    x, given, _ = make_tensors()
    report = LabelIssueReport()
    make_trainer(tmp_path, [report]).fit(Foreign(), make_loader(Named(x, given, classes=list("abcd"))))
    for other in (copy.deepcopy(report), pickle.loads(pickle.dumps(report))):
        assert other.issues().class_names == tuple("abcd")
        np.testing.assert_array_equal(other.issues().score, report.issues().score)


def fit_process(rank, processes, folder, logger):
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp",
        max_epochs=2,
        callbacks=[LabelIssueReport()],
        logger=CSVLogger(folder) if logger else False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    x, given, _ = make_tensors()
    trainer.fit(Foreign(), make_loader(TensorDataset(x, given), 24 // processes))


@pytest.mark.parametrize("logger", [False, True])
def test_two_processes_write_one_report(tmp_path, pool, logger):
    pool.run(fit_process, WORLD_SIZE, str(tmp_path), logger)
    (table,) = tmp_path.rglob("label_issues.csv")
    assert len(rows_of(table)) == 24


def test_a_report_is_json_safe(tmp_path):
    report, _, _ = fit(tmp_path, epochs=1)
    state = report.section.state_dict()["parts"]["dynamics"]
    json.dumps({"classes": state["classes"], "epochs": len(state["curves"])})
    assert set(state) == {"table", "classes", "curves"}
