"""What a recipe says in all, with what it goes on top of, as plain values."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import yaml

from lightning_noisy.recipes.files import config_chain

Settings = dict[str, Any]
"""What YAML says: argument -> value, where a class is meant ``class_path`` and ``init_args``."""

TENSORBOARD = "lightning.pytorch.loggers.TensorBoardLogger"
"""The logger of runs that a command begins."""


def recipe_settings(name: str) -> Settings:
    """The arguments of a recipe and of its bases, as the command line puts them on top of each other.

    Defaults are not filled in, and nothing is checked or made.

    Args:
        name: Recipe or file, e.g. ``"dal/cifar10"``.

    Raises:
        NoisyLabelError: There is none of this name, or a base of it is missing.

    Example:
        >>> recipe_settings("dal/cifar10")["model"]["init_args"]["loss"]
        {'class_path': 'lightning_noisy.losses.DynamicsAwareLoss', 'init_args': {'q': 0.8}}
    """
    settings: Settings = {}
    for config in config_chain(name):
        settings = on_top(settings, yaml.safe_load(config.text))
    return settings


def on_top(lower: Settings, upper: Settings) -> Settings:
    """Settings with others on top, as the command line merges them; neither is changed.

    Another class keeps the arguments that it takes too; ``key+`` appends; a class of before need not be named.

    Args:
        lower: What stands.
        upper: What changes.
    """
    if upper.get("class_path", lower.get("class_path")) != lower.get("class_path"):
        kept = {key: value for key, value in lower.get("init_args", {}).items() if _takes(upper["class_path"], key)}
        lower = {"class_path": upper["class_path"], "init_args": kept} if kept else {}
    if "class_path" in lower and "init_args" not in upper:
        upper = {"init_args": {key: value for key, value in upper.items() if key != "class_path"}}
    result = dict(lower)
    for key, value in upper.items():
        below = lower.get(key.removesuffix("+"))
        if key.endswith("+"):
            result[key.removesuffix("+")] = [*(below or []), *value]
        else:
            result[key] = on_top(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _takes(class_path: str, name: str) -> bool:
    """Whether it is an argument of a class, or of a base that the class hands its further keywords on to."""
    module, _, kind = class_path.rpartition(".")
    for ancestor in getattr(import_module(module), kind).__mro__:
        parameters = inspect.signature(vars(ancestor).get("__init__", _hands_on)).parameters
        if name in parameters:
            return True
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


def _hands_on(**options: Any) -> None:
    """What a class without a constructor of its own does."""
