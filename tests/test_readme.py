"""The README's commands and code are what is tested."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_noisy.callbacks import MaskRefresh
from lightning_noisy.data import DigitsDataModule, SymmetricNoise
from lightning_noisy.heads import LinearHead
from lightning_noisy.networks import SmallCNN
from tests._dummies import isolate
from tests.foreign import make_trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_commands_are_those_of_ci():
    script = (ROOT / ".ci" / "run").read_text()
    main_job, tests = (block.strip() for block in blocks("bash"))
    assert main_job == "pip install . && lightning-noisy fit --config configs/quickstart.yaml"
    assert tests == 'pip install ".[test]" && pytest -n 2 --dist worksteal'
    assert f"{main_job} --trainer.max_epochs 2" in script
    assert tests in script


def test_code_runs(tmp_path):
    (code,) = blocks("python")
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given, corrected = map(int, re.search(r"right labels: (\d+)% given, (\d+)% after SELC", done.stdout).groups())
    assert corrected > given + 10


def printed_by(code, folder, monkeypatch, capsys):
    """What a script says, run in this process: the README's own has a fresh one."""
    isolate(monkeypatch, folder)
    torch.manual_seed(0)
    (folder / "example.py").write_text(code)
    runpy.run_path(str(folder / "example.py"), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 1], ids=["pytorch", "fabric"])
def test_loops_run(tmp_path, monkeypatch, capsys, number):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loops.md").read_text(), flags=re.S)[number]
    said = printed_by(code, tmp_path, monkeypatch, capsys)
    assert number or float(re.findall(r"'target/correction_acc': ([0-9.]+)", said)[-1]) > 0.7


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_fits_on_one_screen():
    assert len(README.splitlines()) <= 80


def test_the_strategy_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "strategies.md").read_text(), flags=re.S)
    said = printed_by(code, tmp_path, monkeypatch, capsys)
    accuracy, precision = map(float, re.findall(r"tensor\(([0-9.]+)\)", said.splitlines()[-1]))
    assert accuracy > 0.7
    assert precision > 0.7


def test_a_strategy_of_ones_own_in_twenty_lines_learns(tmp_path):
    (code,) = re.findall(
        r"```python\n(class |from .*?)```", (ROOT / "docs" / "architecture.md").read_text(), flags=re.S
    )
    assert len([line for line in code.splitlines() if line]) <= 20
    own = {}
    exec(code, own)
    torch.manual_seed(0)
    strategy = own["LearnWhatIsEasy"](SmallCNN(width=8), LinearHead, nn.CrossEntropyLoss(), num_classes=10)
    trainer = make_trainer(tmp_path, [MaskRefresh()], max_epochs=8)
    trainer.fit(strategy, datamodule=DigitsDataModule(noise=SymmetricNoise(0.4), seed=0))
    assert trainer.callback_metrics["test/acc"] > 0.65
    assert trainer.callback_metrics["selection/size"] == pytest.approx(0.6, abs=0.01)
    assert trainer.callback_metrics["selection/precision"] > 0.75  # 0.6 of all labels are right
