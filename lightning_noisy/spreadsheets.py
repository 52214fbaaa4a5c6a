"""Tables that people open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_noisy.files import written_aside

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def neutralized(cell: str) -> str:
    """Text that no spreadsheet runs: an apostrophe before what would begin a formula, and is no plain number."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as CSV (RFC 4180) in UTF-8, whole or not at all.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; what is no text in a file's name is
    written as a question mark.

    Args:
        path: The file.
        header: Names of the columns.
        rows: A value for each column.
    """
    with written_aside(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="")
        writer = csv.writer(text, lineterminator="\r\n")  # so that a cell with either of them is quoted
        writer.writerow([neutralized(name) for name in header])
        for row in rows:
            writer.writerow([neutralized(value) if isinstance(value, str) else value for value in row])
        text.flush()
        text.detach()
