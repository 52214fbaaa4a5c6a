"""Recipes: the configuration files that ship with the package, and the ``base`` that a file goes on top of."""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.recipes.text import bases, is_mapping, read_text, without_base

_SUFFIX = ".yaml"


@dataclass(frozen=True)
class Config:
    """One configuration of a chain: its text without ``base``, and its file; None where the text was the argument."""

    text: str
    path: Path | None

    @property
    def file(self) -> Path | None:
        """The file whatever it was called, to tell whether two are one."""
        return None if self.path is None else self.path.resolve()


def recipe_folder() -> Path:
    """The folder of the recipes: in the package where it was built into a wheel, beside it in a clone."""
    package = Path(__file__).parents[1]
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    if not folders:
        raise NoisyLabelError(f"Expected recipes in '{package / 'configs'}', but there is no such folder: reinstall.")
    return folders[0]


def recipe_names(part: str = "") -> list[str]:
    """Names of the recipes that have ``part`` in them, e.g. ``"dal/cifar10"``, in alphabetical order."""
    root = recipe_folder()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob(f"*{_SUFFIX}"))
    return sorted(name for name in names if part in name)


def recipe_list(part: str = "") -> str:
    """A line for each recipe: its name, and what its first line says.

    Args:
        part: Of the names, what has to be in them.

    Raises:
        NoisyLabelError: It is in none.
    """
    names = recipe_names(part)
    check_argument(bool(names), "FILTER", f"a part of the name of a recipe{_similar(part)}", part)
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {_first_line(recipe_folder() / (name + _SUFFIX))}" for name in names)


def find_config(name: str, folder: Path | None = None) -> Path | None:
    """The file that is meant, with or without ``.yaml``: one in a folder, else a recipe, else None.

    Args:
        name: Path of a file, from ``folder`` on or absolute, or name of a recipe. ``~`` is the home folder.
        folder: None is the working directory.
    """
    own = os.path.expanduser(name)  # noqa: PTH111  `Path.expanduser` raises where `~name` is no user
    places = (Path(folder or "", own), recipe_folder() / name)
    return next(
        (file for place in places for suffix in ("", _SUFFIX) if is_file(file := Path(f"{place}{suffix}"))), None
    )


def is_file(path: Path) -> bool:
    """Whether it is there and no folder. Pipes are files; YAML is none, also where it is too long to be a name."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def config_chain(value: str) -> list[Config]:
    """A configuration after all that it goes on top of, each once, in its first place.

    A file may say at its top ``base: <file>`` or ``base: [<file>, ...]``: a file beside it, or a recipe, with or
    without ``.yaml``.

    Args:
        value: A value of ``--config``: a file, a recipe, or YAML.

    Raises:
        NoisyLabelError: It is nothing of these, or a base is missing, of another type, or its own base.
    """
    path = find_config(value)
    if path is not None:
        chain: list[Config] = []
        _add(path, [], chain)
        return chain
    if re.match(
        r"-$|[\w+.-]+://", value
    ):  # standard input, or a URL: jsonargparse reads them, and refuses `base` there
        return [Config(value, None)]
    check_argument(is_mapping(value), "config", f"a file or a recipe{_similar(value)}", value)
    if bases(value, None):
        raise NoisyLabelError("Expected `base` in a file, but it is in the argument `config`: give `--config` twice.")
    return [Config(value, None)]


def config_values(arguments: Sequence[str]) -> list[str]:
    """The values of ``--config`` among the arguments of the command line."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    values: list[str] = parser.parse_known_args(arguments)[0].config
    return values


def run_name(arguments: Sequence[str]) -> str | None:
    """How a run is called: the last recipe on the command line that is not the base of another, e.g. ``"dal/cifar10"``.

    Where there is no recipe among them, the last file gives its stem. None without a file.
    """
    named = [path for value in config_values(arguments) if (path := find_config(value)) is not None and path.is_file()]
    lower = {config.file for path in named for config in config_chain(str(path))[:-1]}
    tops = [path for path in named if path.resolve() not in lower]
    recipes = [name for path in tops if (name := _recipe_name(path)) is not None]
    return recipes[-1] if recipes else tops[-1].stem if tops else None


def _recipe_name(path: Path) -> str | None:
    """Of a recipe, also where it is the copy in a clone and the package is installed elsewhere."""
    parts = path.resolve().with_suffix("").parts
    if "configs" not in parts:
        return None
    name = "/".join(parts[len(parts) - parts[::-1].index("configs") :])
    return name if (recipe_folder() / (name + _SUFFIX)).is_file() else None


def _add(path: Path, above: list[Path], chain: list[Config]) -> None:
    """Append a file after its bases, depth first. ``above`` are the files whose base it is, outermost first."""
    if path.resolve() in (known.resolve() for known in above):
        raise NoisyLabelError(f"Expected `base` to come to an end, but it goes in a circle: {_arrows(*above, path)}.")
    if path.resolve() in (config.file for config in chain):
        return
    text = read_text(path)
    for base in bases(text, path):
        found = find_config(base, path.parent)
        if found is None:
            raise NoisyLabelError(
                f"Expected `base` to be a file beside '{path}' or a recipe{_similar(base)}, but got {base!r}: "
                f"{_arrows(*above, path, base)}."
            )
        _add(found, [*above, path], chain)
    chain.append(Config(without_base(text, path), path))


def _arrows(*names: object) -> str:
    return " -> ".join(map(str, names))


def _similar(name: str) -> str:
    """What to try instead of a name that is none."""
    close = get_close_matches(name.removesuffix(_SUFFIX), recipe_names())
    meant = f"{' or '.join(map(repr, close))}? " if close else ""
    return f" ({meant}`lightning-noisy recipes` lists them)"


def _first_line(path: Path) -> str:
    return read_text(path).partition("\n")[0].removeprefix("#").strip()
