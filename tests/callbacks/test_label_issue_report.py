"""The list of wrong labels at the end of training."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_noisy import NoisyLabelError, NoisyLoop
from lightning_noisy.callbacks import LabelIssueReport
from lightning_noisy.data import FileNoise, SymmetricNoise
from lightning_noisy.reports.from_dynamics import issues_from_dynamics
from tests.foreign import ForeignModule, make_loader, make_tensors, make_trainer
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
    report, given, clean = fit(tmp_path)
    table, folder = report.table(), tmp_path / "label_issues"
    rows = {int(row["row"]): row for row in rows_of(folder / "label_issues.csv")}
    assert sorted(rows) == list(range(60))
    by_rank = sorted(rows.values(), key=lambda row: int(row["rank"]))
    scores = [float(row["score"]) for row in by_rank]
    assert scores == sorted(scores, reverse=True)
    for index, row in rows.items():
        confidence, modal = table["confidence"][index], table["modal_prediction"][index]
        assert float(row["score"]) == pytest.approx(1 - confidence, abs=1e-4)
        assert (row["given"], row["suggested"], row["truth"]) == (
            str(int(given[index])),
            str(modal),
            str(int(clean[index])),
        )
        assert ("wrong" in row["flags"]) == (1 - confidence >= 0.5 and modal != given[index])
    corrected = [modal if "wrong" in rows[index]["flags"] else int(given[index])
                 for index, modal in enumerate(table["modal_prediction"])]  # fmt: skip
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


def dynamics(confidence, label, modal, share=0.95):
    count = len(label)
    names = ("trend", "variability", "final_confidence", "margin", "forgotten", "last_forgotten", "first_learned")
    return {
        **{name: np.zeros(count) for name in (*names, "last_prediction")},
        "visits": np.array([0 if c is None else 3 for c in confidence]),
        "confidence": np.array([np.nan if c is None else c for c in confidence]),
        "label": np.array(label),
        "modal_prediction": np.array(modal),
        "modal_share": np.full(count, share),
    }


def test_scores_by_hand():
    confidence = [0.9, 0.2, 0.4, None, 0.1, 0.5]
    table = dynamics(confidence, [0, 1, 1, -1, 0, 2], [0, 0, 1, -1, 5, 1])
    issues = issues_from_dynamics(table, np.arange(6).astype(str), "row", ["a", "b", "c"])
    assert issues.score.tolist() == pytest.approx([0.1, 0.8, 0.6, 0, 0.9, 0.5])
    # The fifth goes to an output that stands for no class, as an abstaining loss has one.
    assert issues.flags == ["", "wrong", "ambiguous", "never seen", "ambiguous", "wrong"]
    assert issues.corrected.tolist() == [0, 0, 1, 0, 0, 1]
    rate = issues.noise_rate
    assert (rate.share, rate.low, rate.high) == (2 / 5, 2 / 5, 4 / 5)
    doubtful = issues_from_dynamics({**table, "modal_share": np.full(6, 0.5)}, issues.samples, "row", ["a", "b", "c"])
    assert doubtful.noise_rate.low == 0


def test_expected_counts_add_up():
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.beta(2, 9, 3000), rng.beta(9, 2, 2000)])
    table = dynamics(1 - score, [0] * 5000, [0] * 5000)
    issues = issues_from_dynamics(table, np.arange(5000).astype(str), "row", ["a", "b"])
    right, wrong = issues.components.values()
    assert (right.sum() + wrong.sum()) == pytest.approx(5000, rel=0.15)  # the fit leaves out a tenth, and both ends
    counted = np.histogram(score, bins=50, range=(0, 1))[0]
    assert np.abs(right + wrong - counted)[5:45].mean() < 25


def test_a_report_is_json_safe(tmp_path):
    report, _, _ = fit(tmp_path, epochs=1)
    state = report.section.state_dict()["parts"]["dynamics"]
    json.dumps({"classes": state["classes"], "epochs": len(state["curves"])})
    assert set(state) == {"table", "classes", "curves"}
