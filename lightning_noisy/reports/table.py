"""The ranked list as a table that a spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_noisy.files import written_aside
from lightning_noisy.reports.label_issues import LabelIssues

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def neutralized(cell: str) -> str:
    """Text that no spreadsheet runs: an apostrophe before what would begin a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


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
    names = np.array([neutralized(name) for name in issues.class_names])
    order = issues.order
    columns: dict[str, Iterable[object]] = {
        issues.kind: [neutralized(sample) for sample in issues.samples[order].tolist()],
        "given": names[issues.given[order]],
        "suggested": names[issues.suggested[order]],
        "score": _numbers(issues.score[order]),
        "rank": range(1, len(issues) + 1),
        "flags": [neutralized(issues.flags[row]) for row in order],
    }
    if issues.truth is not None:
        known = issues.truth[order]
        columns["truth"] = np.where(known >= 0, names[np.maximum(known, 0)], "")
    columns |= {name: _numbers(values[order]) for name, values in issues.columns.items()}
    with written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([neutralized(name) for name in columns])
        writer.writerows(zip(*columns.values(), strict=True))
        text.flush()
        text.detach()


def _numbers(values: NDArray[np.generic]) -> list[object]:
    """Numbers with four decimals, whole ones as they are, and nothing for what is not a number."""
    if values.dtype.kind not in "f":
        return [neutralized(value) if isinstance(value, str) else value for value in values.tolist()]
    return ["" if value != value else f"{value:.4f}" for value in values.tolist()]
