"""What came out of the papers' tables here: docs/results.md, made of the record of benchmarks/reproduce.py.

    python -m docs.results

writes it anew, between the markers of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.cells import AGENDA, Cell, Training, published, select
from benchmarks.record import read_record
from benchmarks.reproduce import LAST, RECORD, tables
from lightning_noisy.recipes import recipe_names
from lightning_noisy.reports.comparison import Column

PAGE = Path(__file__).with_name("results.md")
NEAR = 1.0
"""Points from the published figure within which a cell is reproduced; two published standard deviations do as well."""
EPOCHS = {"last": "last", "best": "best", "average": f"mean of last {LAST}"}
COLUMNS = ["data", "method", "labels", "epoch", "published", "ours", "difference", "verdict", "seeds", "hardware"]
OWN = ["recipe", "labels", *EPOCHS.values(), "seeds", "hardware"]

Runs = dict[str, dict[str, Any]]
"""Name -> what the record has of it."""


def sections(runs: Runs) -> dict[str, str]:
    """Marker of the page -> what stands there.

    Args:
        runs: Those of the record.
    """
    rows = {title: [row for cell in cells for row in cell_rows(cell, runs)] for title, cells in tables().items()}
    named = {(cell.recipe, cell.arguments) for cells in tables().values() for cell in cells}
    others = [run for run in runs.values() if (run["recipe"], run["arguments"]) not in named]
    shown = "".join(f"### {title}\n\n{_table(COLUMNS, found)}\n" for title, found in rows.items() if found)
    own = _table(OWN, own_rows(others)) if others else "None has been run.\n"
    return {"tables": shown or "None has been run.\n", "own": own, "missing": missing(runs)}


def cell_rows(cell: Cell, runs: Runs) -> Iterator[list[str]]:
    """A row for each way in which a cell was trained: masking ratio, further arguments."""
    figure = published(cell.published)
    assert figure is not None
    for training, group in _groups(runs.values(), cell.recipe, cell.arguments):
        values = [run["metrics"].get(cell.metric, {}).get(cell.epoch) for run in group]
        if None in values:
            continue
        ours = Column(tuple(values))
        far = round(100 * ours.mean - figure[0], 2)
        verdict = "reproduced" if abs(far) <= max(NEAR, 2 * figure[1]) else "not reproduced"
        method = ", ".join(filter(None, [cell.method, _ratio(training), _options(training)]))
        place = [cell.data, method, cell.column, EPOCHS[cell.epoch]]
        yield [*place, str(cell.published), str(ours), f"{far:+.2f}", verdict, *_origin(group)]


def own_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of what no table has."""
    found = []
    for recipe, arguments in dict.fromkeys((run["recipe"], run["arguments"]) for run in runs):
        for training, group in _groups(runs, recipe, arguments):
            own = f"`{arguments}`" if arguments else "as in the recipe"
            labels = ", ".join(filter(None, [own, _ratio(training), _options(training)]))
            means = [Column(tuple(run["metrics"]["test/acc"][epoch] for run in group)) for epoch in EPOCHS]
            found.append([f"`{recipe}`", labels, *map(str, means), *_origin(group)])
    return found


def missing(runs: Runs) -> str:
    """What has not been run as it is, in a line: tables with the number of their cells, and recipes that are due."""
    done = {(run["recipe"], run["arguments"]) for run in runs.values() if not run["options"]}
    everything = {
        **tables(),
        **{step.table: select(step.table, step.cells) for step in AGENDA if step.table in recipe_names()},
    }
    parts = []
    for title, cells in everything.items():
        left = sum((cell.recipe, cell.arguments) not in done for cell in cells)
        parts += [f"{title} ({left}{f' of {len(cells)}' if left < len(cells) else ''})"] if left else []
    return f"**Not run**, with the number of cells: {'; '.join(parts) or 'nothing'}.\n"


def rendered(page: str, runs: Runs) -> str:
    """The page with its tables made anew."""
    for marker, text in sections(runs).items():
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->\n"
        before, rest = page.split(start)
        page = before + start + text + end + rest.split(end)[1]
    return page


def recorded() -> Runs:
    """The runs of the record."""
    runs: Runs = read_record(RECORD).get("runs", {})
    return runs


def _groups(
    runs: Iterable[dict[str, Any]], recipe: str, arguments: str
) -> Iterator[tuple[Training, list[dict[str, Any]]]]:
    """Runs that differ in their seed alone."""
    found: dict[Training, list[dict[str, Any]]] = {}
    for run in runs:
        if (run["recipe"], run["arguments"]) == (recipe, arguments):
            training = Training(recipe, arguments, run["ratio"], run["options"])
            found.setdefault(training, []).append(run)
    yield from sorted(found.items(), key=lambda item: (item[0].options, item[0].ratio or 0))


def _origin(group: list[dict[str, Any]]) -> list[str]:
    """Seeds and hardware."""
    return [str(len(group)), ", ".join(dict.fromkeys(run["device"] for run in group))]


def _ratio(training: Training) -> str:
    return "" if training.ratio is None else f"ratio {training.ratio:g}"


def _options(training: Training) -> str:
    return training.options and f"`{training.options}`"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), recorded()))
