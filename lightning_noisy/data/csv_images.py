"""People's own images, listed in a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_noisy.data.image_files import is_integer, sorted_names
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_module import ImageListDataModule
from lightning_noisy.data.table_layout import opened_table
from lightning_noisy.errors import NoisyLabelError, check_argument, printable

_SPLITS = ("train", "val", "test")


class CSVDataModule(ImageListDataModule):
    """Images listed in a CSV table with a header: one row for each, with its path and its label.

    Labels are names or integers. Names are sorted. Integers, where all labels are, are taken as they are, so all of 0
    to K - 1 have to occur in the tables; ``class_names`` says otherwise. Without a further column the rows are the
    training set. Messages name a row by its line in the file.

    What the labels mean depends on what stands beside them. With ``clean_column`` they are noisy, and the clean ones
    are known; the test set is evaluated on these, where its table has the column. With ``noise`` they are clean, and
    the noise turns those of the training set into the labels of the run. With neither, nobody knows which are right,
    and ``clean_targets`` is None.

    Args:
        table: The file, UTF-8.
        image_column: Column of the paths, relative to ``root`` or absolute.
        label_column: Column of the labels.
        root: Folder that paths are relative to; None is the table's own.
        clean_column: Column of clean labels.
        split_column: Column that says where a row belongs: "train", "val" or "test".
        test_table: A table of the same columns whose rows are the test set.
        class_names: Names of the classes 0 to K - 1, as the labels have them; None takes those in the tables.
        delimiter: What stands between two columns.
        **options: Further arguments are those of :class:`~lightning_noisy.data.ImageListDataModule`.

    Raises:
        NoisyLabelError: As there; at ``setup`` also a table that is missing or lacks a column, and a row without a
            path, with a label that is no class, or of another split.

    Example::

        CSVDataModule("labels.csv", image_column="file", label_column="species", root="photos", val_fraction=0.1)
    """

    def __init__(
        self,
        table: str,
        image_column: str = "image",
        label_column: str = "label",
        root: str | None = None,
        clean_column: str | None = None,
        split_column: str | None = None,
        test_table: str | None = None,
        class_names: Sequence[str] | None = None,
        delimiter: str = ",",
        **options: Any,
    ) -> None:
        super().__init__(str(Path(table).parent) if root is None else root, **options)
        check_argument(len(delimiter) == 1, "delimiter", "one character", delimiter)
        unique = class_names is None or len(set(class_names)) == len(class_names)
        check_argument(unique, "class_names", "names that differ", class_names)
        self.table = table
        self.image_column = image_column
        self.label_column = label_column
        self.clean_column = clean_column
        self.split_column = split_column
        self.test_table = test_table
        self.delimiter = delimiter
        self._given_names = None if class_names is None else [str(name) for name in class_names]

    @override
    def read_lists(self) -> tuple[list[str], dict[str, ImageList]]:
        splits = self._splits()
        names = self._given_names
        if names is None:
            rows = [row for split in splits.values() for row in split]
            names = self._names({label for row in rows for label in (row.label, row.clean) if label is not None})
        return names, {split: self._listed(rows, names) for split, rows in splits.items()}

    def _splits(self) -> dict[str, list[_Row]]:
        """The rows of each set that has any."""
        rows = self._rows(self.table, "table", self.split_column, self.clean_column)
        splits = {split: [row for row in rows if row.split == split] for split in _SPLITS}
        if self.test_table is not None:
            wanted = "None beside rows of the split 'test'"
            check_argument(not splits["test"], "test_table", wanted, self.test_table)
            splits["test"] = self._rows(self.test_table, "test_table", None, self.clean_column, may_lack_it=True)
        return {split: rows for split, rows in splits.items() if rows or split == "train"}

    def _rows(
        self,
        table: str,
        argument: str,
        split_column: str | None,
        clean_column: str | None,
        may_lack_it: bool = False,
    ) -> list[_Row]:
        """The rows of a table; ``may_lack_it``: the column of clean labels is read where it is there."""
        path = Path(table).expanduser()
        check_argument(path.is_file(), argument, "a CSV file, relative to the working directory", table)
        with opened_table(path, table) as file:
            reader = csv.DictReader(file, delimiter=self.delimiter, strict=True)
            found = list(reader.fieldnames or [])
            if may_lack_it and clean_column not in found:
                clean_column = None
            columns = (self.image_column, self.label_column, split_column, clean_column)
            _check_columns(table, found, columns)
            rows = [self._row(table, reader.line_num, row, columns) for row in reader]
        if not rows:
            raise NoisyLabelError(f"Expected the table '{table}' to have a row for each image, but it has none.")
        return rows

    def _row(self, table: str, number: int, row: Mapping[str | None, Any], columns: Iterable[str | None]) -> _Row:
        if None in row:
            raise NoisyLabelError(
                f"Row {number} of '{table}' has more fields than columns, the last '{printable(row[None][-1])}': quote "
                f"what holds the delimiter {self.delimiter!r}."
            )
        values = [None if column is None else (row[column] or "").strip() for column in columns]
        image, label, split, clean = values
        where = f"'{table}' (image '{printable(image)}')"
        if "" in values:
            empty = next(column for column, value in zip(columns, values, strict=True) if value == "")
            raise NoisyLabelError(f"Row {number} of {where} has nothing in column '{empty}'.")
        if split is not None and split not in _SPLITS:
            raise NoisyLabelError(
                f"Expected row {number} of {where} to have 'train', 'val' or 'test' in column "
                f"'{self.split_column}', but got '{printable(split)}'."
            )
        assert image is not None
        assert label is not None
        return _Row(table, number, image, label, split or "train", clean)

    def _names(self, labels: set[str]) -> list[str]:
        """Class names, where the tables are all that is known of them."""
        names = sorted_names(labels)
        if all(map(is_integer, names)) and names != [str(i) for i in range(len(names))]:
            absent = next(str(i) for i in range(len(names)) if str(i) not in labels)
            raise NoisyLabelError(
                f"Expected the labels of '{self.table}' to be names, or all of the integers 0 to {names[-1]}, but "
                f"{absent} does not occur: pass `class_names` with all classes in their order."
            )
        return names

    def _listed(self, rows: Sequence[_Row], names: Sequence[str]) -> ImageList:
        classes = {name: label for label, name in enumerate(names)}
        known = all(row.clean is not None for row in rows) and self.clean_column is not None
        return ImageList.of(
            self.root,
            [row.image for row in rows],
            [row.of_class(row.label, classes) for row in rows],
            rows[0].table if rows else self.table,
            [row.number for row in rows],
            [row.of_class(row.clean or "", classes) for row in rows] if known else None,
        )


def _check_columns(table: str, found: Sequence[str], wanted: Iterable[str | None]) -> None:
    for column in wanted:
        if column is not None and column not in found:
            raise NoisyLabelError(
                f"Expected the table '{table}' to have a column '{column}', but got "
                f"{printable(', '.join(found)) or 'none'}: name the columns by the arguments, or set `delimiter`."
            )
        if found.count(column or "") > 1:
            raise NoisyLabelError(f"The table '{table}' has {found.count(str(column))} columns '{column}': rename one.")


@dataclass(frozen=True)
class _Row:
    """A row of a table, and its line."""

    table: str
    number: int
    image: str
    label: str
    split: str
    clean: str | None

    def of_class(self, name: str, classes: Mapping[str, int]) -> int:
        """The class of a label."""
        if name not in classes:
            raise NoisyLabelError(
                f"Row {self.number} of '{self.table}' (image '{printable(self.image)}') has the label "
                f"'{printable(name)}', which is none of the {len(classes)} classes in `class_names`."
            )
        return classes[name]
