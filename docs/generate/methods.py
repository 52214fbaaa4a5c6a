"""The methods that have a page of their own: what docs/methods.yaml, their docstrings and the recipes say of them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from docs.generate.docstrings import markdown
from lightning_noisy import callbacks, heads, losses, modules, networks
from lightning_noisy.recipes import recipe_names, recipe_settings

FOLDER = Path(__file__).parents[1]
ROOMS = {"losses": "losses", "targets and masks": "callbacks", "strategies": "modules"}
"""Group of docs/methods.yaml -> room of the package."""
_OPTIONS = {"losses": "--model.loss", "targets and masks": "--trainer.callbacks"}
NAMES: dict[str, Any] = {
    **{name: getattr(room, name) for room in (losses, callbacks, heads, modules, networks) for name in room.__all__},
    "nn": nn,
    "torch": torch,
}
"""What the uses in docs/methods.yaml are written with."""


@dataclass(frozen=True)
class Method:
    """An entry of docs/methods.yaml."""

    name: str
    group: str
    use: str
    when: str
    rows: list[str]
    published: list[str]
    picture: dict[str, str] = field(default_factory=dict)
    command: str = ""

    @property
    def room(self) -> str:
        """The module that it is imported from."""
        return f"lightning_noisy.{ROOMS[self.group]}"

    @property
    def docstring(self) -> str:
        """Of the class, as Markdown."""
        return markdown(inspect.getdoc(NAMES[self.name]) or "")

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring."""
        return " ".join(self.docstring.split("\n\n")[0].split())

    @property
    def equation(self) -> str | None:
        """The first equation of the docstring."""
        found = re.search(r"^\$\$.*\$\$$", self.docstring, flags=re.M)
        return found[0] if found else None

    @property
    def facts(self) -> dict[str, str]:
        """What the table of its group says of it."""
        if self.group == "targets and masks":
            return {}
        table = _table(f"{self.group}.md")
        facts = dict(zip(table["class"], table[f"`{self.name}`"], strict=True))
        facts.pop("what it does", None)
        return {name: "nothing" if value == "\N{EN DASH}" else value for name, value in facts.items()}


@cache
def methods() -> dict[str, Method]:
    """All of them, by name."""
    entries = yaml.safe_load((FOLDER / "methods.yaml").read_text())
    return {name: Method(name, group, **entry) for group, named in entries.items() for name, entry in named.items()}


def made(method: Method) -> Any:
    """What its use makes; of several callbacks a tuple."""
    return eval(method.use, dict(NAMES))


def code(method: Method) -> str:
    """Its use in a few lines."""
    own = set(vars(import_module(method.room))) & set(re.findall(r"[A-Z]\w+", method.use))
    head = f"from {method.room} import {', '.join(sorted(own, key=str.lower))}\n\n"
    if method.group == "losses":
        return f"{head}loss = {method.use}\nmodule = NoisyLabelModule(SmallCNN(), LinearHead, loss, num_classes=10)"
    if method.group == "targets and masks":
        return (
            f"{head}trainer = Trainer(max_epochs=20, callbacks=[{method.use}])\ntrainer.fit(your_module, your_loader)"
        )
    views = method.facts["views"]
    given = "" if views == "any one" else f", views={views.split(', ')}".replace("'", '"')
    return f"{head}module = {method.use}\ndata = DigitsDataModule(SymmetricNoise(0.4){given})"


def options(method: Method) -> str | None:
    """The same on the command line, where its arguments are numbers and words; None where they are not."""
    if method.command:
        return method.command
    option = _OPTIONS.get(method.group)
    calls = ast.parse(f"[{method.use}]", mode="eval").body.elts  # type: ignore[attr-defined]
    words = []
    for call in calls:
        names = inspect.signature(NAMES[call.func.id]).parameters
        given = dict(zip(names, call.args, strict=False)) | {one.arg: one.value for one in call.keywords}
        if option is None or not all(isinstance(value, ast.Constant) for value in given.values()):
            return None
        words.append(f"{option}+={call.func.id}" if option == "--trainer.callbacks" else f"{option} {call.func.id}")
        words += [f"{option}.{name} {value.value}" for name, value in given.items() if name != "head"]
    return " ".join(words)


@cache
def recipes_of() -> dict[str, list[str]]:
    """Class -> recipes that name it, the shortest names first."""
    found: dict[str, list[str]] = {}
    for recipe in sorted(recipe_names(), key=lambda name: (len(name), name)):
        for name in set(_classes(recipe_settings(recipe))):
            found.setdefault(name, []).append(recipe)
    return found


def _classes(settings: Any) -> Iterator[str]:
    """The class names in a configuration."""
    if isinstance(settings, dict):
        if isinstance(settings.get("class_path"), str):
            yield settings["class_path"].rpartition(".")[2]
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from _classes(value)


@cache
def _table(name: str) -> dict[str, list[str]]:
    """First cell -> the others, of the table of a page whose first column is named class."""
    lines = (FOLDER / name).read_text().split("\n| class |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in f"class |{lines}".splitlines()]
    return {row[0]: row[1:] for row in rows}
