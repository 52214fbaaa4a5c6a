"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lightning_noisy.errors import NoisyLabelError


class Made:
    """What is made from now on where there is nothing yet, so that it can go again.

    Args:
        path: A file or folder.
    """

    def __init__(self, path: Path) -> None:
        self._parts = [part for part in (path, *path.parents) if not part.exists()]

    def remove(self) -> None:
        """Remove it with all in it, and the folders above it that have become empty."""
        for part in self._parts[:1]:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            with suppress(OSError):
                part.unlink(missing_ok=True)
        self.remove_empty()

    def remove_empty(self) -> None:
        """Remove it and the folders above it as far as they are empty."""
        for part in self._parts:
            with suppress(OSError):
                part.rmdir()


def check_writable(path: Path, argument: str) -> None:
    """Refuse the name of a file that cannot be written, before there is anything to write. It leaves nothing behind.

    Args:
        path: The file.
        argument: What the user calls it.

    Raises:
        NoisyLabelError: It cannot be written.
    """
    folder = path.parent
    made = Made(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NoisyLabelError(f"Cannot write '{path}', argument `{argument}`: {error.strerror}.") from error
    finally:
        made.remove_empty()


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A binary file beside ``path`` that takes its place when the block ends, and is removed when the block fails.

    The folder is made if missing. The content is on the disk before the name is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
