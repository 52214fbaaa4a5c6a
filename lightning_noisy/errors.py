"""The one error of the package: input that cannot be used, said in one line."""

from __future__ import annotations

import sys


class NoisyLabelError(ValueError):
    """Input that cannot be used. The message is one line: what was expected, what came, the way out."""


def check_argument(valid: bool, name: str, wanted: str, value: object) -> None:
    """Refuse an argument.

    Args:
        valid: Whether the argument can be used.
        name: The argument's name as the user wrote it.
        wanted: What it has to be, e.g. ``"a float in [0, 1)"``.
        value: What came.

    Raises:
        NoisyLabelError: ``valid`` is false.
    """
    if not valid:
        raise NoisyLabelError(f"Expected argument `{name}` to be {wanted}, but got {value!r}.")


def check_kind(valid: bool, name: str, wanted: str, value: object) -> None:
    """The same where what came is too long to be shown: its kind is named.

    Args:
        valid: Whether the argument can be used.
        name: The argument's name as the user wrote it.
        wanted: What it has to be.
        value: What came.

    Raises:
        NoisyLabelError: ``valid`` is false.
    """
    if not valid:
        came = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise NoisyLabelError(f"Expected argument `{name}` to be {wanted}, but got {came}.")


def check_count(value: object, name: str, least: int = 1, optional: bool = False, most: int = sys.maxsize) -> None:
    """Refuse an argument that counts something and is no int, too small, or too large.

    Args:
        value: What came.
        name: The argument's name as the user wrote it.
        least: The smallest that it may be.
        optional: Whether it may be None.
        most: The largest that it may be; by default what fits 64 bits.

    Raises:
        NoisyLabelError: ``value`` is something else, for instance a float or a bool.
    """
    counts = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    bounds = f"of at least {least}" if most == sys.maxsize else f"from {least} to {most}"
    wanted = f"an int {bounds}" + (", or None" if optional else "")
    check_argument(counts or (optional and value is None), name, wanted, value)


def printable(text: object) -> str:
    """What a file holds, as it can stand in a line: at most 120 characters, without line breaks and the like."""
    return "".join(character if character.isprintable() else " " for character in str(text)[:120])
