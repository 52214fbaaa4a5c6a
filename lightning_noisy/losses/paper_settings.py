"""The arguments that papers and their code give the losses, for each data set, out of YAML."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from lightning_noisy.errors import check_argument
from lightning_noisy.recipes import recipe_settings

Setting = dict[str, Any]
"""``class_path`` and ``init_args`` of a loss, as in a configuration file, and of the ``callbacks`` that move it."""

_MOVES = "Schedule"  # ends the name of every callback that moves arguments


@cache
def published_losses() -> dict[str, dict[str, dict[str, Any]]]:
    """Paper -> loss -> data set, with the noise where it matters -> the recipe that has it, else {class: arguments}.

    It is what ``published.yaml`` beside this file says. ``docs/losses.md`` has all settings as a table, names the
    papers, and says where values come from.
    """
    table: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
    return table


def paper_setting(paper: str, loss: str, data: str) -> Setting:
    """The arguments that a paper gives a loss, as in a configuration file.

    Args:
        paper: A key of :func:`published_losses`, e.g. ``"DAL"``.
        loss: A loss of the paper, e.g. ``"NCE+AGCE"``.
        data: A data set, with the noise where it matters, e.g. ``"CIFAR-10"``.

    Returns:
        ``class_path`` and ``init_args``, losses in a loss likewise. Where an argument moves while the network trains,
        the ``callbacks`` that move it are there too. What is not said has the default.

    Raises:
        NoisyLabelError: There is no such setting; the message lists those there are.
    """
    table: Any = published_losses()
    for name, key in (("paper", paper), ("loss", loss), ("data", data)):
        check_argument(key in table, name, "one of " + ", ".join(map(repr, table)), key)
        table = table[key]
    return _of_recipe(table) if isinstance(table, str) else _spelled_out(table)


def paper_loss(paper: str, loss: str, data: str) -> nn.Module:
    """A loss with the arguments of a paper, without the callbacks that move it.

    Args:
        paper: As in :func:`paper_setting`.
        loss: As there.
        data: As there.

    Returns:
        The loss, with reduction ``"mean"``.

    Raises:
        NoisyLabelError: There is no such setting; the message lists those there are.

    Example:
        >>> paper_loss("DAL", "TCE", "CIFAR-100")
        TaylorCrossEntropy(reduction='mean', order=18, eps=1e-06)
    """
    return _build(paper_setting(paper, loss, data))


def _of_recipe(name: str) -> Setting:
    settings = recipe_settings(name)
    moving = [callback for callback in settings["trainer"]["callbacks"] if callback["class_path"].endswith(_MOVES)]
    setting = _whole(settings["model"]["init_args"]["loss"])
    return {**setting, "callbacks": moving} if moving else setting


def _whole(loss: Setting) -> Setting:
    """With ``init_args`` also where there are none."""
    given = loss.get("init_args", {}).items()
    return {**loss, "init_args": {key: _whole(value) if isinstance(value, dict) else value for key, value in given}}


def _spelled_out(entry: dict[str, dict[str, Any]]) -> Setting:
    ((name, given),) = entry.items()
    arguments = {key: _spelled_out(value) if isinstance(value, dict) else value for key, value in given.items()}
    return {"class_path": name if "." in name else f"lightning_noisy.losses.{name}", "init_args": arguments}


def _build(setting: Setting) -> nn.Module:
    module, _, name = setting["class_path"].rpartition(".")
    arguments = {k: _build(v) if isinstance(v, dict) else v for k, v in setting["init_args"].items()}
    loss: nn.Module = getattr(import_module(module), name)(**arguments)
    return loss
