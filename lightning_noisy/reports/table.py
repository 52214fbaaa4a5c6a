"""The ranked list as a table that a spreadsheet opens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_noisy.reports.label_issues import LabelIssues
from lightning_noisy.spreadsheets import write_csv


def write_table(path: Path, issues: LabelIssues) -> None:
    """Write ``label_issues.csv``: a row for each sample, the most suspicious first.

    Columns: ``path`` or ``row``, ``given``, ``suggested``, ``score`` in [0, 1], ``rank`` from 1, ``flags``, then
    ``truth`` where it is known, then further columns such as training dynamics. Text that a spreadsheet would run as a
    formula gets an apostrophe in front. The file is whole or not there; UTF-8, and what is no text in a file's name is
    written as a question mark.

    Args:
        path: Name of the file.
        issues: The ranked labels.
    """
    names = np.array(issues.class_names)
    order = issues.order
    columns: dict[str, Iterable[object]] = {
        issues.kind: issues.samples[order].tolist(),
        "given": names[issues.given[order]].tolist(),
        "suggested": names[issues.suggested[order]].tolist(),
        "score": _numbers(issues.score[order]),
        "rank": range(1, len(issues) + 1),
        "flags": [issues.flags[row] for row in order],
    }
    if issues.truth is not None:
        known = issues.truth[order]
        columns["truth"] = np.where(known >= 0, names[np.maximum(known, 0)], "").tolist()
    columns |= {name: _numbers(values[order]) for name, values in issues.columns.items()}
    write_csv(path, list(columns), zip(*columns.values(), strict=True))


def _numbers(values: NDArray[np.generic]) -> list[object]:
    """Numbers with four decimals, whole ones as they are, and nothing for what is not a number."""
    if values.dtype.kind not in "f":
        return list(values.tolist())
    return ["" if value != value else f"{value:.4f}" for value in values.tolist()]
