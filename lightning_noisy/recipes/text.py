"""The text of a configuration, before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from lightning_noisy.errors import NoisyLabelError, check_argument

_MERGE = "tag:yaml.org,2002:merge"
_LARGEST = 1_000_000  # nodes, each as often as it is used


def read_text(path: Path) -> str:
    """What a file says.

    Raises:
        NoisyLabelError: It cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NoisyLabelError(
            f"Expected '{path}' to be YAML in UTF-8, but byte {error.start} is none: save it as UTF-8."
        ) from error
    except OSError as error:
        raise NoisyLabelError(f"Expected '{path}' to be YAML, but it cannot be read: {error.strerror}.") from error


def is_mapping(text: str) -> bool:
    """Whether a text is YAML with names and values.

    Raises:
        NoisyLabelError: It is no YAML at all.
    """
    return isinstance(_node(text, None), yaml.MappingNode)


def argument_names(text: str, path: Path | None) -> list[str]:
    """The names at the top, and behind a dot those of the Trainer; none of what is no YAML with names.

    Raises:
        NoisyLabelError: See :func:`entries`.
    """
    if path is None and not is_mapping(text):
        return []
    found = [(key, value) for key, value, _ in entries(text, path) if key.tag != _MERGE]
    trainers = [pair for key, value in found if key.value == "trainer" for pair in _pairs(value)]
    return [key.value for key, _ in found] + [f"trainer.{key.value}" for key, _ in trainers if key.tag != _MERGE]


def bases(text: str, path: Path | None) -> list[str]:
    """The files that a configuration goes on top of.

    Raises:
        NoisyLabelError: They are no names.
    """
    for key, value, _ in entries(text, path):
        if key.value == "base":
            given = yaml.SafeLoader("").construct_document(value)
            listed = given if isinstance(given, list) else [given]
            wanted = "a file or a list of files" + ("" if path is None else f" in '{path}'")
            check_argument(all(isinstance(base, str) and base for base in listed), "base", wanted, given)
            return listed
    return []


def without_base(text: str, path: Path) -> str:
    """The other arguments, each in its line."""
    found = list(entries(text, path))
    for key, _, following in found:
        if key.value == "base":
            start = key.start_mark.index
            kept = "\n" * text.count("\n", start, following)
            return "{}" if len(found) == 1 else text[:start] + kept + text[following:]
    return text


def entries(text: str, path: Path | None) -> Iterator[tuple[yaml.Node, yaml.Node, int]]:
    """Key, value and where the next key begins, of each argument of a configuration.

    Raises:
        NoisyLabelError: The text is no YAML with names and values, has a name twice in one place, or refers to itself.
    """
    node = _node(text, path)
    if not isinstance(node, yaml.MappingNode):
        raise NoisyLabelError(
            f"Expected {_name(path)} to be YAML with arguments and their values, but got {text[:40]!r}."
        )
    _size(node, path, {}, ())
    end = node.end_mark.index - (1 if node.flow_style else 0)
    starts = [key.start_mark.index for key, _ in node.value]
    for (key, value), following in zip(node.value, [*starts[1:], end], strict=False):
        yield key, value, following


def _node(text: str, path: Path | None) -> yaml.Node | None:
    """The YAML as it stands."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise NoisyLabelError(f"Expected {_name(path)} to be YAML, but {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise NoisyLabelError(f"Expected {_name(path)} to be YAML, but it is nested too deep.") from error


def _size(node: yaml.Node, path: Path | None, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Nodes in a node, where an anchor counts as often as it is used."""
    if id(node) in above:
        raise NoisyLabelError(f"Expected {_name(path)} to come to an end, but {_where(node)} refers to itself.")
    if id(node) not in known:
        within = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, path)
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = parts if isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) else []
        known[id(node)] = 1 + sum(_size(part, path, known, within) for part in inner)
    if known[id(node)] > _LARGEST:
        raise NoisyLabelError(f"Expected {_name(path)} to be a configuration, but its anchors make it huge.")
    return known[id(node)]


def _check_keys(node: yaml.MappingNode, path: Path | None) -> None:
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NoisyLabelError(f"Expected {_name(path)} to have names before colons, but {_where(key)} has none.")
        if key.value in seen:
            raise NoisyLabelError(f"{_name(path)} has `{key.value}` twice, the second time in {_where(key)}: keep one.")
        seen.add(key.value)
        kind = {"class_path": "tag:yaml.org,2002:str", "init_args": "tag:yaml.org,2002:map"}.get(key.value)
        if kind not in (None, value.tag):
            wanted = "the name of a class" if key.value == "class_path" else "names and values"
            raise NoisyLabelError(f"Expected `{key.value}` in {_where(key)} of {_name(path)} to be {wanted}.")
    beside = sorted(seen - {"class_path", "init_args", "dict_kwargs"}) if "class_path" in seen else []
    if beside:
        raise NoisyLabelError(
            f"{_name(path)} has `{beside[0]}` beside the `class_path` of {_where(node)}: put it under `init_args`."
        )


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _where(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _name(path: Path | None) -> str:
    return "argument `config`" if path is None else f"'{path}'"
