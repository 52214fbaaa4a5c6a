"""Published figures beside their commands: the tables of docs/recipes.md, made of docs/published.yaml and the recipes.

    python -m docs.published

writes them anew, between the markers of the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_noisy.recipes import recipe_list

FOLDER = Path(__file__).parent
PAGE = FOLDER / "recipes.md"
DATA: dict[str, Any] = yaml.load((FOLDER / "published.yaml").read_text(), yaml.BaseLoader)
NOISE: dict[str, dict[str, str]] = DATA.pop("noise")
"""Data set -> column or kind of noise -> its arguments."""
PAPERS: dict[str, list[dict[str, Any]]] = DATA
"""Paper -> its tables, as the file has them; every value is text."""

WITHOUT_FIGURE = "no published figure"
"""Marker of the recipes that no table names."""


class Figure(NamedTuple):
    """A cell, and the command behind it."""

    table: str
    data: str
    method: str
    column: str
    value: str
    recipe: str | None
    """None where the package has no command."""
    arguments: str
    epoch: str
    """What of a run it is: its last epoch, its best, or the average of the last ones."""


def figures() -> Iterator[Figure]:
    """Every cell of every table."""
    for paper, tables in PAPERS.items():
        for table in tables:
            for group in table["groups"]:
                for row in group["rows"]:
                    for column, value in zip(table["columns"], row["cells"], strict=True):
                        place = (_title(paper, table), group["data"], row["method"], column, value)
                        yield Figure(*place, *_command(table, group, row, column), _epoch(table, column))


def _title(paper: str, table: dict[str, Any]) -> str:
    return f"{paper}, {table['title']}"


def _command(table: dict[str, Any], group: dict[str, Any], row: dict[str, Any], column: str) -> tuple[str | None, str]:
    """Recipe and arguments: those of the row, of the column, of the table."""
    given = _of_column(row.get("at", {}), column)
    whole = given if given and not given.startswith("--") else f"{row.get('recipe', '')} {given}"
    recipe, _, own = whole.strip().partition(" ")
    parts = (own, column_arguments(group, column), table.get("arguments", ""))
    return recipe or None, " ".join(filter(None, parts))


def _epoch(table: dict[str, Any], column: str) -> str:
    return {"best epoch": "best", "average": "average"}.get(column) or table.get("epoch", "last")


def column_arguments(group: dict[str, Any], column: str) -> str:
    """What a column adds to the command of each row; nothing where it is no noise."""
    pattern = _of_column(NOISE.get(group.get("noise", ""), {}), column)
    number = column.rpartition(" ")[2]
    return pattern.format(number=number, rate=f"{int(number) / 100:g}" if number.isdecimal() else "")


def _of_column(entries: dict[str, str], column: str) -> str:
    return entries.get(column) or entries.get(column.rpartition(" ")[0], "")


def rendered(page: str) -> str:
    """The page with its tables made anew."""
    for marker, text in {**{paper: _tables(paper) for paper in PAPERS}, WITHOUT_FIGURE: _without_figure()}.items():
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->\n"
        before, rest = page.split(start)
        page = before + start + text + end + rest.split(end)[1]
    return page


def _tables(paper: str) -> str:
    return "".join(_table(_title(paper, table), table) for table in PAPERS[paper])


def _table(title: str, table: dict[str, Any]) -> str:
    """Heading, table and notes. Where columns are noises, each data set starts with the arguments of them."""
    groups, several = table["groups"], len(table["groups"]) > 1
    heading = f"### {title}" + ("" if several else f" ({groups[0]['data']})")
    lines = [_line(["data"] * several + ["method", "recipe", *table["columns"]])]
    lines.append("|---" * (several + 2 + len(table["columns"])) + "|")
    for group in groups:
        first = [group["data"]] * several
        if "noise" in group:
            given = [f"`{column_arguments(group, column)}`" for column in table["columns"]]
            lines.append(_line([*first, "*arguments*", "*of the column*", *given]))
        lines += [
            _line([*first, row["method"], _recipe(row, table["columns"]), *map(_cell, row["cells"])])
            for row in group["rows"]
        ]
    notes = list(table.get("notes", []))
    if "arguments" in table:
        notes.insert(0, f"Every command ends with `{table['arguments']}`.")
    return "\n".join([heading, "", *lines, "", *(f"- {note}" for note in notes), *[""] * bool(notes)]) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: str) -> str:
    return value.replace("(", " (")


def _recipe(row: dict[str, Any], columns: list[str]) -> str:
    """Recipe and arguments as code, and the columns where they are others."""
    if "missing" in row:
        return str(row["missing"])
    at: dict[str, list[str]] = {}
    for column in columns:
        if given := _of_column(row.get("at", {}), column):
            at.setdefault(given, []).append(column)
    return "; ".join([_code(row["recipe"]), *(f"{', '.join(where)}: {_code(given)}" for given, where in at.items())])


def _code(command: str) -> str:
    """Code, a span for the recipe and one for its arguments."""
    spans = [command] if command.startswith("--") else command.split(" ", 1)
    return " ".join(f"`{span}`" for span in spans)


def _without_figure() -> str:
    named = {figure.recipe for figure in figures()}
    entries = (line.split(maxsplit=1) for line in recipe_list().splitlines())
    lines = [_line([f"`{name}`", what]) for name, what in entries if name not in named]
    return "\n".join([_line(["recipe", "what it is"]), "|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
