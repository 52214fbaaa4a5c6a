"""The table of docs/projects.md names the projects that are run."""

from __future__ import annotations

from pathlib import Path

from tests.projects.known import KNOWN


def test_the_table_has_a_row_for_each_project_and_no_empty_cell() -> None:
    text = (Path(__file__).parents[2] / "docs" / "projects.md").read_text()
    first = text.split("\n\n")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first[2:]]
    assert [row[0].replace("-", "_") for row in rows] == list(KNOWN)
    assert all(len(row) == first[0].count("|") - 1 and all(row) for row in rows)
