"""Objects that say what they were made of."""

from __future__ import annotations


class Described:
    """An object whose arguments can be written down.

    A subclass keeps its arguments as public attributes of the same name, so that :meth:`describe` finds them.
    """

    def describe(self) -> dict[str, object]:
        """Class name and arguments as plain values, the same after a round trip through JSON."""
        arguments = {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}
        return {"class": type(self).__name__, **arguments}

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(arguments)})"


def _plain(value: object) -> object:
    """A value that JSON gives back unchanged."""
    if isinstance(value, Described):
        return value.describe()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
