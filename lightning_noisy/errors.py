"""The one error of the package: input that cannot be used, said in one line."""

from __future__ import annotations


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
