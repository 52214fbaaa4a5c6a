"""The option ``--model.optimizer`` of the command line: SAM goes around the optimizer that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import Namespace

from lightning_noisy.optim import SAM

_OPTIMIZER = "model.init_args.optimizer"
_SAM = f"{SAM.__module__}.{SAM.__name__}", "lightning_noisy.optim.SAM"


@contextmanager
def sam_keeps_the_optimizer(arguments: Namespace) -> Iterator[None]:
    """In the block an option is read; where it makes the optimizer SAM and says no ``base``, that is the one of before.

    Args:
        arguments: Those read so far; the block changes them.
    """
    before = arguments.get(_OPTIMIZER)
    before = before.clone() if isinstance(before, Namespace) else None
    yield
    now = arguments.get(_OPTIMIZER)
    if before is None or not isinstance(now, Namespace) or before.class_path in _SAM or now.class_path not in _SAM:
        return
    if now.get("init_args.base") is None:
        now["init_args.base"] = before
