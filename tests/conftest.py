from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two processes in one gloo group."""
    processes = Pool()
    yield processes
    processes.close()
