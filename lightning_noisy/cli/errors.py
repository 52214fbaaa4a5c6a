"""What the command line says when a run fails: one line for what the user gave, the traceback for what is a bug.

What is said rests on where the exception arose, see :func:`reason`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only

from lightning_noisy.cli.near_names import with_near_names
from lightning_noisy.cli.origin import IN_WORKER, Origin, causes
from lightning_noisy.cli.private_api import CALLBACK_TWICE, first_of_the_processes, refusal
from lightning_noisy.cli.start import Start
from lightning_noisy.errors import NoisyLabelError

DEBUG = "--debug"
_FROM_WORKER = f"{NoisyLabelError.__name__}: "  # before the message in the traceback that a loader's worker hands on
_NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "array is too big", "Unable to allocate")
_NO_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
_LOST = (
    "Another process of this run has ended, or does not answer: the reason is what it has said itself, or, if it was "
    "killed, what its launcher or scheduler says. `--ckpt_path` goes on from the last checkpoint."
)
_LONGEST = 400


@contextmanager
def one_line_errors(arguments: Sequence[str], start: Start) -> Iterator[None]:
    """Input that cannot be used ends the process with one line on standard error, and leaves nothing behind.

    Of several processes the first that fails speaks, since the others fail for the same reason or because of it.

    Args:
        arguments: Those of the command line. With ``--debug`` among them every error keeps its traceback.
        start: What is known of the run's start.

    Raises:
        SystemExit: With code 2, for what the user can mend.
    """
    try:
        yield
    except SystemExit:  # of a command inside, which has said why
        start.undo()
        raise
    except Exception as error:
        start.undo()
        why = reason(error, start.over)
        if why is not None:
            _say(f"error: {why}")
        elif Origin.of(error).ours and not _is_memory(causes(error)[-1]):
            _say("this is a bug in lightning_noisy: please report it, with the traceback.")
        if why is None or DEBUG in arguments:
            raise
        raise SystemExit(2) from error


def reason(error: BaseException, started: bool) -> str | None:
    """The line for the user, None where the traceback says more.

    Errors of this package and of Lightning that are made for users are their own line. Of others, it counts where they
    arose: in a file of the user's, which is named; in torch or another library that was called with what the user
    gave, whose argument is named; in this package, which is a bug. A process that another one has left alone says so.
    Once a step is done, only the first and the last kind are a line.

    Args:
        error: What ended the run.
        started: Whether a step was done before.
    """
    chain = causes(error)
    for cause in chain:
        if isinstance(cause, (NoisyLabelError, MisconfigurationException)) or str(cause).startswith(CALLBACK_TWICE):
            return _line(str(cause).rpartition(_FROM_WORKER)[2])
    if isinstance(error, ArgumentError):
        return with_near_names(refusal(str(error)), error)
    last, origin = chain[-1], Origin.of(error)
    if isinstance(last, OSError) and last.filename is not None and origin.users is None:
        return _line(f"Cannot use '{last.filename}': {last.strerror}")
    if _is_of_other_process(last):
        return _LOST
    if started:
        return None
    if _is_memory(last):
        return _line(f"Out of memory{_of(origin)}: {_what(last)}")
    if origin.users is not None:
        return _line(f"{type(last).__name__} in {origin.users}: {_what(last)} (`{DEBUG}` shows the traceback)")
    if origin.argument is not None:
        return _line(f"{origin.argument}: {_what(last)} (`{DEBUG}` shows the traceback)")
    return None


def _is_memory(error: BaseException) -> bool:
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return named or any(text in str(error) for text in _NO_MEMORY)


def _is_of_other_process(error: BaseException) -> bool:
    """Whether a collective has failed, as it does in all processes when one of them is gone."""
    waiting = dist.is_available() and dist.is_initialized()
    return waiting and (isinstance(error, dist.DistError) or any(text in str(error) for text in _NO_PEER))


def _of(origin: Origin) -> str:
    return "" if origin.argument is None else f", {origin.argument}"


def _what(error: BaseException) -> str:
    """The first paragraph of a message; torch's go on with the frames of C++. Of a loader's worker the last line."""
    text = str(error).strip()
    if IN_WORKER in text:
        return text.splitlines()[-1]
    return text.split("\n\n")[0].split("\nException raised from")[0] or type(error).__name__


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."


def _say(text: str) -> None:
    if first_of_the_processes(int(getattr(rank_zero_only, "rank", 0) or 0)):
        print(f"lightning-noisy: {text}", file=sys.stderr)
