from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.distributed import Pool

# The same examples on every run, so that a change is judged by what it changes; `--hypothesis-profile search` draws new
# ones. How long an example takes says nothing on a shared machine.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two processes in one gloo group."""
    processes = Pool()
    yield processes
    processes.close()
