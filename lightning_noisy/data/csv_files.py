"""Tables that a run leaves for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_noisy.files import written_aside
from lightning_noisy.reports.table import neutralized


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV in UTF-8, whole or not at all.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; what is no text in a file's name is
    written as a question mark.

    Args:
        path: The file.
        header: Names of the columns.
        rows: A value for each column.
    """
    with written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([neutralized(value) if isinstance(value, str) else value for value in row])
        text.flush()
        text.detach()
