"""Every notebook runs from top to bottom, and shows what its text says."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(tmp_path, path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    before, after = (float(number) for number in re.findall(r"clean test accuracy: ([\d.]+)%", text))
    assert before < 85
    assert after > before + 5
    assert "Linear <All keys matched successfully>" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
