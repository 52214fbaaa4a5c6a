"""What compiling uses of PyTorch beyond what is documented; see :mod:`lightning_noisy.private_api`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


def compiler_failure(error: BaseException) -> str | None:
    """Why a compiled function could not be made, in a line; None of an error that is not about that."""
    from torch._dynamo.exc import BackendCompilerFailed  # takes a second, and is there where something was compiled

    if not isinstance(error, BackendCompilerFailed):
        return None
    return f"{type(error.inner_exception).__name__}: {str(error.inner_exception).strip().splitlines()[0]}"


def may_differ_in_size(batch: Tensor) -> None:
    """Let one compiled function serve batches of all sizes. It is no error where it cannot."""
    torch._dynamo.maybe_mark_dynamic(batch, 0)


@contextmanager
def graphs_that_stay() -> Iterator[None]:
    """What is compiled meanwhile may be passed backward more than once; its backward pass reuses no saved tensor."""
    from torch._functorch import config  # likewise

    with config.patch(donated_buffer=False) if hasattr(config, "donated_buffer") else nullcontext():  # since torch 2.6
        yield
