"""The README's commands and code are what is tested."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_commands_are_those_of_ci():
    script = (ROOT / ".ci" / "run").read_text()
    main_job, tests = (block.strip() for block in blocks("bash"))
    assert main_job == "pip install . && lightning-noisy fit --config configs/quickstart.yaml"
    assert tests == 'pip install ".[test]" && pytest'
    assert f"{main_job} --trainer.max_epochs 2" in script
    assert tests in script


def test_code_runs(tmp_path):
    (code,) = blocks("python")
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given, corrected = map(int, re.search(r"right labels: (\d+)% given, (\d+)% after SELC", done.stdout).groups())
    assert corrected > given + 10


@pytest.mark.parametrize("number", [0, 1], ids=["pytorch", "fabric"])
def test_loops_run(tmp_path, number):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "loops.md").read_text(), flags=re.S)[number]
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert number or float(re.findall(r"'target/correction_acc': ([0-9.]+)", done.stdout)[-1]) > 0.7


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_fits_on_one_screen():
    assert len(README.splitlines()) <= 80


def test_the_strategy_of_the_docs_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "strategies.md").read_text(), flags=re.S)
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy, precision = map(float, re.findall(r"tensor\(([0-9.]+)\)", done.stdout.splitlines()[-1]))
    assert accuracy > 0.7
    assert precision > 0.7
