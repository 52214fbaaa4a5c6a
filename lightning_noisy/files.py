"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lightning_noisy.errors import NoisyLabelError


def check_writable(path: Path, argument: str) -> None:
    """Refuse the name of a file that cannot be written, before there is anything to write. It leaves nothing behind.

    Args:
        path: The file.
        argument: What the user calls it.

    Raises:
        NoisyLabelError: It cannot be written.
    """
    folder = path.parent
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NoisyLabelError(f"Cannot write '{path}', argument `{argument}`: {error.strerror}.") from error
    finally:
        for part in missing:
            with suppress(OSError):
                part.rmdir()


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
