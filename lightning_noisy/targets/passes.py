"""Losses and backward passes that are no training, told apart from those that are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class _Passes:
    """Which pass runs: for all threads, since autograd has threads of its own."""

    aside = False


@contextmanager
def pass_aside() -> Iterator[None]:
    """Around a loss and a backward pass that are no training: what listens to them leaves them out."""
    before, _Passes.aside = _Passes.aside, True
    try:
        yield
    finally:
        _Passes.aside = before


def is_aside() -> bool:
    """Whether the loss or the backward pass of now is no training."""
    return _Passes.aside
