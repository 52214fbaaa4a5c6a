"""How a person's table of images is laid out, as its header tells."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lightning_noisy.data.image_files import is_integer, sorted_names
from lightning_noisy.errors import NoisyLabelError, printable

TABLES = (".csv", ".tsv")
IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "image_path", "filepath")
LABEL_COLUMNS = ("label", "class", "target", "category", "species", "y")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class TableLayout:
    """What stands where in a table."""

    delimiter: str
    """What stands between two columns."""

    image_column: str
    """Column of the paths."""

    label_column: str | None
    """Column of the labels; None where there is none."""


@contextmanager
def opened_table(path: Path, name: str | None = None) -> Iterator[TextIO]:
    """A table to be read, by ``csv``, whose complaints are said in a line.

    Args:
        path: The file, UTF-8.
        name: What the user calls it; None: ``path``.

    Raises:
        NoisyLabelError: It is no table in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except (csv.Error, UnicodeDecodeError) as error:
        raise NoisyLabelError(f"Cannot read the table '{name or path}' ({error}): save it as CSV in UTF-8.") from error


def table_layout(path: Path, image_column: str | None = None, label_column: str | None = None) -> TableLayout:
    """Read the header of a table.

    Args:
        path: The table, UTF-8.
        image_column: Column of the paths; None looks for one with a usual name, of any case, or takes the only one.
        label_column: Column of the labels; None looks likewise.

    Raises:
        NoisyLabelError: It cannot be read, or has no such column.
    """
    with opened_table(path) as file:
        header = file.readline().rstrip("\r\n")
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
        columns = next(csv.reader([header], delimiter=delimiter), [])
    only = columns if len(columns) == 1 else []
    images = [image_column] if image_column is not None else [*_usual(columns, IMAGE_COLUMNS), *only]
    labels = [label_column] if label_column is not None else _usual(columns, LABEL_COLUMNS)
    for wanted, found in ((image_column, images), (label_column, labels)):
        if wanted is not None and found[0] not in columns:
            raise _missing(path, f"'{wanted}'", columns)
    if not images:
        raise _missing(path, f"of paths, called {', '.join(IMAGE_COLUMNS)}", columns)
    return TableLayout(delimiter, images[0], labels[0] if labels else None)


def integers_that_occur(path: Path, layout: TableLayout) -> list[str] | None:
    """Names of the classes where all labels of a table are integers, but not 0 to K - 1: those that occur.

    None where the labels say by themselves what the classes are.
    """
    with opened_table(path) as file:
        rows = csv.DictReader(file, delimiter=layout.delimiter)
        labels = sorted_names({(row.get(layout.label_column or "") or "").strip() for row in rows})
    integers = all(map(is_integer, labels))
    return labels if integers and labels != [str(label) for label in range(len(labels))] else None


def _usual(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns with a usual name, the most usual first."""
    known = {column.strip().lower(): column for column in reversed(columns)}
    return [known[name] for name in names if name in known]


def _missing(path: Path, wanted: str, columns: Sequence[str]) -> NoisyLabelError:
    found = printable(", ".join(columns)) or "none"
    return NoisyLabelError(f"Expected the table '{path}' to have a column {wanted}, but got {found}.")
