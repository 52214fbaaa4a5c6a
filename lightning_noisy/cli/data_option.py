"""The option ``--data`` of the command line: label noise belongs to the data that it was given for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_warn

_DATA = "data"
_NOISE = "init_args.noise"


@contextmanager
def noise_stays_with_its_data(arguments: Namespace, texts: Iterable[str]) -> Iterator[None]:
    """In the block arguments are read; where that changes the data class, the noise of before goes, with a line.

    Noise that is given along with the other class stays. One file with what it is based on counts as given together.

    Args:
        arguments: Those read so far; the block changes them.
        texts: The YAML that the block reads.
    """
    before = arguments.get(_DATA)
    owner, noise = _class_and_noise(before)
    yield
    data = arguments.get(_DATA)
    heir, kept = _class_and_noise(data)
    if noise is None or owner == heir or kept != noise or any(map(_names_noise, texts)):
        return
    data.init_args.noise = None
    rank_zero_warn(
        f"The label noise {_short(noise.get('class_path', noise))} was given for {_short(owner)}, and is dropped for "
        f"{_short(heir)}: give `data.noise` after the data class if these labels shall be changed as well."
    )


def _class_and_noise(data: Any) -> tuple[str | None, Any]:
    """A copy of the noise: the arguments themselves change in the block."""
    if not isinstance(data, Namespace):
        return None, None
    noise = data.get(_NOISE)
    return data.get("class_path"), noise.clone() if isinstance(noise, Namespace) else noise


def _names_noise(text: str) -> bool:
    """Whether a configuration says something of the noise, in one of the two ways to write it."""
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    data = read.get(_DATA) if isinstance(read, dict) else None
    return isinstance(data, dict) and any("noise" in part for part in (data, data.get("init_args") or {}))


def _short(class_path: object) -> str:
    return str(class_path).rpartition(".")[2]
