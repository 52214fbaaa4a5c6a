"""A page for each method, and the list of them."""

from __future__ import annotations

from docs.generate.methods import ROOMS, Method, code, made, methods, options, recipes_of
from docs.generate.pictures import SHOWN, accuracy_figure, panel_rows, svg, weight_picture
from docs.generate.records import METHODS, Ground, Measured, command, cost, measured, of_method, shell
from docs.published import Figure, figures

_FACTS = {"needs": "needs beside logits and labels", "cost": "cost, cross entropy being 1"}
_RECIPES_SHOWN = 8


def page(method: Method) -> str:
    """The whole page."""
    facts = "\n".join(f"- {_FACTS.get(name, name)}: {value}" for name, value in method.facts.items())
    parts = [f"# {method.name}", method.summary, f"**When.** {method.when}", facts]
    if method.equation:
        parts.append(
            f"## Equation\n\n{method.equation}\n\nWhat the letters mean: [in full](#{method.room}.{method.name})."
        )
    parts += ["## Use", *_use(method), *_behaviour(method), "## Measured", *_measured(method)]
    parts += ["## Published", *_published(method), "## In full", _reference(method)]
    return "\n\n".join(filter(None, parts)) + "\n"


def index() -> str:
    """The list of all methods."""
    parts = ["# Methods", "Each page says what a method is, when to use it and how, and what was measured."]
    parts.append("To choose one: [which method?](../which_method.md)")
    for group in ROOMS:
        own = [method for method in methods().values() if method.group == group]
        rows = [[f"[`{method.name}`]({method.name}.md)", method.summary] for method in own]
        parts += [f"## {group.capitalize()}", table(["method", "what it is"], rows)]
    return "\n\n".join(parts) + "\n"


def pictures(method: Method) -> dict[str, bytes]:
    """File name -> SVG."""
    drawn = {"weight": weight_picture(made(method), method.name)} if method.group == "losses" else {}
    for ground, rows in of_method(method.rows):
        drawn |= {name: svg(accuracy_figure(shown)) for name, shown in panel_rows(ground, rows).items()}
    return {f"{method.name}-{name}.svg": content for name, content in drawn.items()}


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns)), *map(" | ".join, rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _reference(method: Method) -> str:
    """The docstring; the methods of losses and strategies are those of their base."""
    options = ["heading_level: 3", *["members: false"] * (method.group != "targets and masks")]
    return f"::: {method.room}.{method.name}\n    options:\n" + "\n".join(f"      {option}" for option in options)


def _use(method: Method) -> list[str]:
    parts = [f"```python\n{code(method)}\n```"]
    if (given := options(method)) is not None:
        line = shell(f"lightning-noisy fit --config quickstart_ce {given}")
        parts.append(f"On the command line, here on the digits:\n\n```bash\n{line}\n```")
    names = recipes_of().get(method.name, [])
    shown, more = ", ".join(f"`{name}`" for name in names[:_RECIPES_SHOWN]), len(names) - _RECIPES_SHOWN
    rest = f" and {more} more ([all](../recipes.md))" if more > 0 else ""
    return [*parts, f"Recipes, for `--config`: {shown}{rest}." if names else "No recipe has it."]


def _behaviour(method: Method) -> list[str]:
    parts = []
    if method.group == "losses":
        parts.append(
            "How much it learns from a sample, against the probability of its label. Cross entropy learns most from "
            "what is unlikely, MAE from all alike ([how it is computed](../losses.md#the-weight-of-a-sample))."
        )
        parts.append(f"![gradient weight of {method.name}](pictures/{method.name}-weight.svg){{ .wide }}")
    if method.picture:
        shows, file = method.picture["shows"], method.picture["file"]
        parts += [f"{shows} ([how to draw it](../trackers.md)).", f"![{shows}](../images/{file})"]
    for ground, rows in of_method(method.rows):
        names = list(dict.fromkeys(row.method for row in rows))
        cut = f" The first {SHOWN} of {len(names)} rows are drawn." if len(names) > SHOWN else ""
        files = [f"pictures/{method.name}-{name}.svg" for name in panel_rows(ground, rows)]
        parts.append(f"Over the epochs, on {ground.title}. A curve that falls learns wrong labels by heart.{cut}")
        parts.append(" ".join(f"![accuracy of {method.name} over epochs]({file}){{ .panel }}" for file in files))
    return ["## Behaviour", *parts] if parts else []


def _measured(method: Method) -> list[str]:
    parts = []
    for ground, rows in of_method(method.rows):
        columns = ["name", "labels", "last epoch", "best epoch", "cross entropy, last epoch", "seeds"]
        cells = [_cells(ground, row) for row in rows]
        parts += [f"On {ground.title}; clean test accuracy, per cent.", table(columns, cells)]
        if ground is METHODS:
            costs = {row.method: cost(row.method) for row in rows}
            shown = ", ".join(f"{name} {value:.2f}" for name, value in costs.items())
            parts.append(f"Time of a run, cross entropy being 1: {shown}.")
        parts.append(f"```bash\n{command(ground, rows)}\n```")
    if not parts:
        return ["It has not been measured here."]
    return [*parts, "What this shows and what it does not: [measured](../benchmarks.md)."]


def _cells(ground: Ground, row: Measured) -> list[str]:
    plain = measured(ground).get(("CE", row.noise))
    baseline = plain.last if plain else "not run"
    cells = [row.method, ground.noises[row.noise], row.last, f"{row.best:.2f}", baseline, str(len(row.seeds))]
    return [cell.replace(" ± ", "&nbsp;±&nbsp;") for cell in cells]


def _published(method: Method) -> list[str]:
    """The figures of papers, those with the same columns in one table."""
    rows: dict[tuple[str, str, str], list[Figure]] = {}
    for figure in figures():
        if figure.method in method.published:
            rows.setdefault((figure.table, figure.data, figure.method), []).append(figure)
    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for place, own in rows.items():
        columns = tuple(figure.column for figure in own)
        cells = [
            f"{place[0]}; {place[1]}",
            place[2],
            *(figure.value.replace("(", " (") for figure in own),
        ]
        tables.setdefault(columns, []).append(cells)
    if not tables:
        return ["No figure of a paper is known here."]
    head = ["paper", "method"]
    parts = [table([*head, *columns], cells) for columns, cells in tables.items()]
    return [
        *parts,
        "Accuracy in per cent, as printed, unless a title says otherwise. "
        "Each figure with its whole command: [recipes](../recipes.md#what-the-papers-print).",
    ]
