"""Whether a machine, and a configuration on it, can train."""

from __future__ import annotations

import sys

import pytest
import torch

from lightning_noisy.cli import run
from lightning_noisy.cli.doctor import size
from tests._dummies import isolate

SMALL = ["--config", "quickstart", "--model.backbone.width", "4", "--trainer.accelerator", "cpu"]


@pytest.fixture
def say(monkeypatch, tmp_path, capsys):
    """Runs the command: its exit code, its facts, and what it says on standard error."""
    isolate(monkeypatch, tmp_path)

    def asked(*arguments):
        monkeypatch.setattr(sys, "argv", ["lightning-noisy", "doctor", *arguments])
        code = 0
        try:
            run()
        except SystemExit as stopped:
            code = stopped.code
        said = capsys.readouterr()
        return code, dict(line.split(None, 1) for line in said.out.splitlines() if line.strip()), said.err

    return asked


def test_a_configuration(say, tmp_path):

    code, facts, _ = say(*SMALL, "--data.batch_size", "100")
    assert code == 0
    assert facts["batch"] == "float32 100 x 1 x 8 x 8, int64 100, int64 100"
    assert "15 batches an epoch" in facts["data"]  # 1437 samples
    assert facts["rows"].endswith(f"ConfidenceTracker {1437 * 8 / 1000:.3g} KB")
    assert facts["noise"].startswith("41.0%")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_train(say):
    code, facts, said = say(*SMALL, "--model.num_classes", "9")
    assert code == 2
    assert "result" not in facts
    assert said.splitlines()[-1].startswith("lightning-noisy: error: ")


def test_the_machine_alone(say):
    code, facts, _ = say()
    assert code == 0
    assert f"torch {torch.__version__.split('+')[0]}" in facts["versions"]
    assert "result" not in facts


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 KB"), (2.34e9, "2.34 GB"), (5e12, "5 TB")]
)
def test_sizes(count, text):
    assert size(count) == text
