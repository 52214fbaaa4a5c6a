"""A measured recommendation by what one knows: docs/which_method.md, made of the records of the benchmarks.

    python -m docs.which_method

writes its tables anew, between the markers of the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from docs.generate.method_pages import table
from docs.generate.methods import methods
from docs.generate.records import DIGITS, METHODS, STRATEGIES, Ground, Measured, command, cost, measured

PAGE = Path(__file__).with_name("which_method.md")
TOP = 6
"""Rows of a table."""
LEFT_OUT = ("forward, true matrix", "backward, true matrix", "Co-teaching, true rate", "JoCoR, true rate")
"""They are told what nobody knows outside a benchmark."""


def sections() -> dict[str, str]:
    """Marker of the page -> what stands there."""
    return {
        "unknown": unknown(),
        **{f"features {noise}": ranking((METHODS, STRATEGIES), noise) for noise in METHODS.noises},
        **{f"digits {noise}": ranking((DIGITS,), noise) for noise in DIGITS.noises},
        "cheap": cheap(),
        "below": below(),
    }


def unknown() -> str:
    """Losses and target methods by the largest distance to the best of a noise."""
    names = [name for name in _names(METHODS) if name not in LEFT_OUT]
    best = {noise: max(row.mean for row in _rows(METHODS, noise)) for noise in METHODS.noises}
    means = {name: {noise: measured(METHODS)[name, noise] for noise in METHODS.noises} for name in names}
    gaps = {name: max(best[noise] - row.mean for noise, row in rows.items()) for name, rows in means.items()}
    first = sorted(names, key=gaps.__getitem__)[:TOP]
    shown = [[name, *(row.last for row in means[name].values()), f"{gaps[name]:.2f}"] for name in first]
    columns = ["method", *METHODS.noises.values(), "farthest from the best"]
    said = f"**{first[0]}** is never more than {gaps[first[0]]:.2f} points behind the best of the {len(names)}."
    return _section(said, table(columns, shown), _again(METHODS, first))


def ranking(grounds: tuple[Ground, ...], noise: str) -> str:
    """The highest means under one noise."""
    rows = sorted((row for ground in grounds for row in _rows(ground, noise)), key=lambda row: -row.mean)
    first, top = rows[0], rows[:TOP]
    proved = next((row for row in rows if len(row.seeds) >= 3), None)
    ahead = (
        ", ".join(f"{row.method} ({row.last}, {_count(row)})" for row in rows[: rows.index(proved)]) if proved else ""
    )
    if proved is None:
        said = f"Highest: **{first.method}**, {first.last} ({_count(first)}). One or two seeds do not prove an order."
    else:
        said = f"**{proved.method}**, {proved.last}, is the highest of those with three seeds or more."
        said += f" Above it, not proved: {ahead}." if ahead else ""
    plain = next(measured(ground)["CE", noise] for ground in grounds if ("CE", noise) in measured(ground))
    shown = [[row.method, row.last, f"{row.best:.2f}", str(len(row.seeds))] for row in (*top, plain)]
    again = "\n".join(_again(ground, [row.method for row in top if row.ground is ground]) for ground in grounds)
    return _section(said, table(["method", "last epoch", "best epoch", "seeds"], shown), again)


def cheap() -> str:
    """What a run costs, of the first methods of each noise."""
    first = [row for noise in METHODS.noises for row in sorted(_rows(METHODS, noise), key=lambda row: -row.mean)[:TOP]]
    costs = {row.method: cost(row.method) for row in first}
    shown = [[name, f"{costs[name]:.2f}"] for name in sorted(costs, key=costs.__getitem__)]
    said = "The losses and target methods of the tables above; cross entropy is 1."
    return _section(said, table(["method", "time of a run"], shown))


def below() -> str:
    """What ended below cross entropy."""
    lines = []
    for ground, noise in _all():
        plain = measured(ground)["CE", noise]
        worse = [row for row in _rows(ground, noise) if row.mean < plain.mean]
        names = ", ".join(f"{row.method} {row.last}" for row in sorted(worse, key=lambda row: row.mean))
        kind = "losses and target methods" if ground is METHODS else "strategies"
        lines.append(f"- {kind}, {ground.noises[noise]}, cross entropy {plain.last}: {names or 'none'}.")
    return "\n".join(lines) + "\n"


def rendered(page: str) -> str:
    """The page with its tables made anew."""
    for marker, text in sections().items():
        start, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->\n"
        before, rest = page.split(start)
        page = before + start + text + end + rest.split(end)[1]
    return page


def _section(said: str, rows: str, commands: str = "") -> str:
    again = f"\n```bash\n{commands.strip()}\n```\n" if commands else ""
    return f"{said}\n\n{rows}\n{again}"


def _again(ground: Ground, names: Iterable[str]) -> str:
    """The command for these methods and what they are compared with."""
    rows = [row for name in names for noise in ground.noises if (row := measured(ground).get((name, noise)))]
    return command(ground, rows) if rows else ""


def _all() -> list[tuple[Ground, str]]:
    grounds = (METHODS, STRATEGIES, DIGITS)
    return [(ground, noise) for ground in grounds for noise in ground.noises if ("CE", noise) in measured(ground)]


def _names(ground: Ground) -> list[str]:
    return list(dict.fromkeys(name for name, _ in measured(ground)))


def _rows(ground: Ground, noise: str) -> list[Measured]:
    return [row for (name, of), row in measured(ground).items() if of == noise and name not in LEFT_OUT]


def _count(row: Measured) -> str:
    return f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"


def linked(page: str) -> str:
    """The page with the names of methods as links to theirs."""
    for row, name in pages().items():
        link = f"[{row}](methods/{name}.md)"
        page = page.replace(f"\n| {row} |", f"\n| {link} |").replace(f"**{row}**", f"**{link}**")
    return page


@cache
def pages() -> dict[str, str]:
    """Name in the records -> the method that names it first among its rows."""
    places = [(position, row, method.name) for method in methods().values() for position, row in enumerate(method.rows)]
    found: dict[str, str] = {}
    for _, row, name in sorted(places, key=lambda place: place[0]):
        found.setdefault(row, name)
    return found


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
