"""Docstrings as Markdown: their roles, directives and tables are those of reStructuredText."""

from __future__ import annotations

import pkgutil
import re
import textwrap
from functools import cache
from importlib import import_module

from lightning_noisy import functional

ROOMS = (
    "",
    "losses",
    "callbacks",
    "modules",
    "heads",
    "networks",
    "optim",
    "data",
    "data.noise",
    "data.backdoor",
    "reports",
    "state",
    "targets",
    "checkpoints",
    "cli",
    "embedding",
    "figures",
    "recipes",
    "functional.losses",
    *(f"functional.{module.name}" for module in pkgutil.iter_modules(functional.__path__) if not module.ispkg),
)
"""What of the package is described, in this order; "" is the package itself."""


def markdown(text: str) -> str:
    """A docstring with formulas, links, examples and tables as the site writes them."""
    text = re.sub(r"^( *)(=+  =[ =]*)\n(.*\n)\1=[ =]*\n((?:.*\n)+?)\1=[ =]*(?:\n|$)", _table, text, flags=re.M)
    text = re.sub(r"^( *)\.\. math::((?:.*\n)(?:\1 +\S.*(?:\n|$))*|.*$)", _display, text, flags=re.M)
    text = re.sub(r":math:`([^`]+)`", lambda match: f"${' '.join(match[1].split())}$", text)
    text = re.sub(r":(?:class|func|meth|attr|data|mod|exc):`([^`]+)`", lambda match: _link(match[1]), text)
    text = re.sub(r"^( *)(Example|In YAML)::\n\n((?:\1 +.*(?:\n|$)| *\n)+)", _block, text, flags=re.M)
    text = re.sub(r"^(References|Shape):\n((?: {4,}.*(?:\n|$))+)", _paragraph, text, flags=re.M)
    return re.sub(r"^Example:\n", "Examples:\n", text, flags=re.M)


def _display(match: re.Match[str]) -> str:
    return f"{match[1]}$${' '.join(match[2].split())}$$\n"


def _block(match: re.Match[str]) -> str:
    """An example as code of its language."""
    language = "python" if match[2] == "Example" else "yaml"
    code = textwrap.indent(textwrap.dedent(match[3]).strip(), "    ")
    return f"{match[1]}Examples:\n    ```{language}\n{code}\n    ```\n\n"


def _paragraph(match: re.Match[str]) -> str:
    """A part that is neither arguments nor an example."""
    return f"**{match[1]}:** {textwrap.dedent(match[2])}"


def _table(match: re.Match[str]) -> str:
    """A simple table, whose rule says where columns start; a row without a first cell goes on with the one above."""
    starts = [rule.start() for rule in re.finditer("=+", match[2])]
    rows: list[list[str]] = []
    for line in (match[3], *match[4].splitlines()):
        text = line[len(match[1]) :]
        cells = [text[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    lines = [f"{match[1]}| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], match[1] + "|---" * len(starts) + "|", *lines[1:]]) + "\n"


def _link(target: str) -> str:
    """A link to what the site describes, else code."""
    shown = target.rpartition(".")[2] if target.startswith("~") else target
    name = target.strip("~.").rpartition(".")[2]
    place = places().get(name)
    return f"[`{shown}`][{place}]" if place else f"`{shown}`"


@cache
def places() -> dict[str, str]:
    """Public name -> where the site has it; of a name that two rooms offer, the first."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for name in public_names(room):
            found.setdefault(name, f"{module_name(room)}.{name}")
    return found


@cache
def public_names(room: str) -> tuple[str, ...]:
    """What a room offers, in alphabetical order: its ``__all__``, or what a module defines itself."""
    module = import_module(module_name(room))
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    return tuple(sorted(names, key=str.lower))


def module_name(room: str) -> str:
    """The dotted name to import."""
    return f"lightning_noisy.{room}".rstrip(".")
