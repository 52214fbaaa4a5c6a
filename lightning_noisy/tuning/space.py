"""What is searched: values that are listed, and ranges that are drawn from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Protocol

from lightning_noisy.errors import NoisyLabelError, check_argument

Values = dict[str, str]
"""A point: name of an argument -> its value, as on the command line."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})((?::log|:int)*)")
_LOOKS_LIKE_A_RANGE = re.compile(rf"{_NUMBER}\.\.[^/]*")
_WANTED = (
    "`<name>=<value>,<value>,...` or a range `<name>=<low>..<high>`, with `:log` or `:int` after it, each argument and "
    "value once, e.g. `model.loss.q=0.5,0.7` or `model.optimizer.lr=1e-4..1e-1:log`"
)
_PROTOCOL = ("data.noisy_val", "data.val_fraction", "trainer.logger", "config", "ckpt_path")


class Draws(Protocol):
    """What a range is drawn with: a trial of Optuna's."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices."""


@dataclass(frozen=True)
class Listed:
    """Values, as they were written."""

    values: tuple[str, ...]

    def draw(self, draws: Draws, name: str) -> str:
        """One of them."""
        return draws.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Range:
    """Numbers between two, both included."""

    low: float
    high: float
    log: bool
    """Whether their logarithm is uniform."""
    whole: bool
    """Whether they are integers."""

    def draw(self, draws: Draws, name: str) -> str:
        """One of them, to four digits, which a person can read and type."""
        if self.whole:
            return str(draws.suggest_int(name, int(self.low), int(self.high), log=self.log))
        rounded = float(f"{draws.suggest_float(name, self.low, self.high, log=self.log):.4g}")
        return repr(min(max(rounded, self.low), self.high))


Space = dict[str, Listed | Range]
"""Name of an argument -> what it may be."""


def read_space(searches: Sequence[str]) -> Space:
    """Read what ``--search`` says.

    Args:
        searches: ``<name>=<value>,<value>,...`` or ``<name>=<low>..<high>`` for each argument. ``:log`` after a range
            draws its logarithm uniformly, ``:int`` draws whole numbers.

    Raises:
        NoisyLabelError: There is none, one that is written in another way, or an argument or value twice; a seed; or
            an argument that ``tune`` sets itself.
    """
    space: Space = {}
    check_argument(len(searches) > 0, "search", _WANTED, None)
    for search in searches:
        name, _, text = search.partition("=")
        check_argument(bool(name) and not name.startswith("-") and name not in space, "search", _WANTED, search)
        _check_name(name)
        space[name] = _read(text, search)
    return space


def grid_of(space: Mapping[str, Listed | Range]) -> list[Values]:
    """All combinations of the values, the last argument fastest.

    Raises:
        NoisyLabelError: There is a range among them.
    """
    lists = []
    for name, axis in space.items():
        if isinstance(axis, Range):
            raise NoisyLabelError(f"`{name}` has a range, and a grid takes values: give `--sampler tpe` or `random`.")
        lists.append(axis.values)
    return [dict(zip(space, values, strict=True)) for values in product(*lists)]


def _check_name(name: str) -> None:
    last = name.rpartition(".")[2]
    if last in ("seed", "seed_everything"):
        raise NoisyLabelError(
            f"`{name}` is not searched: the best of several seeds is luck. Give it as an argument of its own."
        )
    if f"{name}.".startswith("data.noise."):
        raise NoisyLabelError(
            f"`{name}` is not searched: trials on other labels do not compare, and the least noise would win. Give it "
            "as an argument of its own."
        )
    if any(f"{name}.".startswith(f"{own}.") for own in _PROTOCOL):
        raise NoisyLabelError(f"`{name}` is not searched: `tune` sets it, or it says what all runs have in common.")


def _read(text: str, search: str) -> Listed | Range:
    found = _RANGE.fullmatch(text)
    if found is None:
        values = tuple(text.split(","))
        listed = all(values) and len(set(values)) == len(values) and not any(map(_LOOKS_LIKE_A_RANGE.fullmatch, values))
        check_argument(listed, "search", _WANTED, search)
        return Listed(values)
    low, high = float(found[1]), float(found[2])
    log, whole = ":log" in found[3], ":int" in found[3]
    check_argument(low < high and isfinite(high - low), "search", "a range whose first end is the smaller", search)
    check_argument(not log or low > 0, "search", "a range above 0 where its logarithm is drawn", search)
    check_argument(
        not whole or (low.is_integer() and high.is_integer()), "search", "a range between whole numbers", search
    )
    return Range(low, high, log, whole)
