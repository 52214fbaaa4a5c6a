"""What a misspelled option or class may have meant."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType

import lightning.pytorch.callbacks
import lightning.pytorch.cli
import lightning.pytorch.loggers
import torch
from lightning.pytorch import Trainer

from lightning_noisy import callbacks, data, heads, losses, modules, networks
from lightning_noisy.cli.private_api import refused_class

TOP = ("ckpt_path", "config", "data", "model", "predictions", "seed_everything", "trainer", "untrained", "weights_only")
"""The names of arguments that have no dot before them."""

_CLASSES: dict[str, tuple[ModuleType, ...]] = {
    "model": (modules,),
    "backbone": (networks,),
    "head": (heads,),
    "loss": (losses, torch.nn),
    "optimizer": (torch.optim,),
    "lr_scheduler": (torch.optim.lr_scheduler, lightning.pytorch.cli),
    "data": (data,),
    "noise": (data,),
    "callbacks": (callbacks, lightning.pytorch.callbacks),
    "logger": (lightning.pytorch.loggers,),
}
"""Where the classes for an argument are."""

_OPTION = re.compile(r"Option '([\w.]+)' is not accepted|option '([\w.]+)'|unrecognized arguments: --([\w.]+)")
_CLASS = re.compile(r"dot import path string: ([\w.]+)|has no attribute '(\w+)'|No module named '([\w.]+)'")


def with_near_names(line: str, error: BaseException) -> str:
    """A line of jsonargparse with the names that are near to the one that is not known, if it is about one.

    Args:
        line: The line.
        error: The error that it was made of, which knows the class that was asked.
    """
    option, kind = _OPTION.search(line), _CLASS.search(line)
    if option is not None:
        return line + did_you_mean(*_option(next(filter(None, option.groups())), error))
    if kind is not None:
        return line + did_you_mean(next(filter(None, kind.groups())).rpartition(".")[2], _class_names(line))
    return line


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the names that are near, empty where none is."""
    near = get_close_matches(name, [other for other in dict.fromkeys(known) if other != name], n=2, cutoff=0.65)
    return f": did you mean {' or '.join(f'`{other}`' for other in near)}?" if near else ""


def argument_names(kind: type) -> list[str]:
    """Names of the arguments of a class, and of its bases as far as it hands them on."""
    names: list[str] = []
    for owner in inspect.getmro(kind):
        construct = vars(owner).get("__init__")
        if not inspect.isfunction(construct):
            continue
        parameters = inspect.signature(construct).parameters.values()
        names += [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return [name for name in names if name != "self"]


def _option(name: str, error: BaseException) -> tuple[str, list[str]]:
    """The part of an option that is not known, and what could stand in its place."""
    head, _, rest = name.partition(".")
    kind = refused_class(error)
    if head == "trainer" and rest:
        return rest.partition(".")[0], argument_names(Trainer)
    if kind is not None:
        return head, [*argument_names(kind), "class_path", "init_args"] if head != "class_path" else []
    return head, [*TOP, *argument_names(Trainer)]


def _class_names(line: str) -> list[str]:
    """Of the classes that the argument may be, which stands before the colon; of all where nothing is known of it."""
    packages = _CLASSES.get(line.partition(":")[0].rpartition(".")[2], ())
    return [name for package in packages or sum(_CLASSES.values(), ()) for name in _public(package)]


def _public(package: ModuleType) -> list[str]:
    return [name for name, value in vars(package).items() if isinstance(value, type) and not name.startswith("_")]
