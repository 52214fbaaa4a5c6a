"""Pages of the API, a room each: every public name, with its docstring or a link to where the site has it."""

from __future__ import annotations

import inspect
from importlib import import_module

from docs.generate.docstrings import ROOMS, markdown, module_name, places, public_names
from docs.generate.method_pages import table
from docs.generate.methods import methods


def rooms() -> list[str]:
    """What has a page, low and high rooms alike, by name."""
    return [room for room in ROOMS if public_names(room)]


def file_name(room: str) -> str:
    """Of the page."""
    return f"{module_name(room)}.md"


def page(room: str) -> str:
    """What a room offers: a list of names, then those that are described here."""
    module = import_module(module_name(room))
    rows = [[_link(room, name), _summary(getattr(module, name))] for name in public_names(room)]
    here = [name for name in public_names(room) if _home(name) == room]
    parts = [f"# {module_name(room)}", markdown(inspect.getdoc(module) or ""), table(["name", "what it is"], rows)]
    return "\n\n".join([*parts, *(f"::: {places()[name]}" for name in here)]) + "\n"


def index() -> str:
    """The list of all rooms."""
    rows = [
        [f"[`{module_name(room)}`]({file_name(room)})", _summary(import_module(module_name(room)))] for room in rooms()
    ]
    intro = "Every public name, by the part of the package that offers it. [How the parts fit](../architecture.md)."
    return f"# API\n\n{intro}\n\n{table(['part', 'what it is'], rows)}\n"


def _link(room: str, name: str) -> str:
    return f"[`{name}`][{places()[name]}]"


def _home(name: str) -> str | None:
    """The room whose page describes a name; None where a method's page does."""
    if name in methods() and methods()[name].room == places()[name].rpartition(".")[0]:
        return None
    return places()[name].rpartition(".")[0].removeprefix("lightning_noisy").removeprefix(".")


def _summary(value: object) -> str:
    """The first sentence or paragraph of a docstring; of a constant its type."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return f"a {type(value).__name__}"
    text = " ".join(markdown(inspect.getdoc(value) or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")
