"""A command line beside versions that are too old for it; the library beside them is tried by ``.ci/lower_bounds``."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from lightning_noisy import requirements
from lightning_noisy.requirements import check_command_line
from tests._dummies import command_line_error, needs_command_line


@needs_command_line
def test_what_is_installed_is_enough() -> None:
    check_command_line()


def test_what_is_too_old_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "COMMAND_LINE", {"lightning": "2.5", "jsonargparse": "99.1"})
    installed = version("jsonargparse")
    assert command_line_error(capsys, "nothing.yaml") == (
        f"The command line needs jsonargparse>=99.1, but {installed} is installed: pip install -U 'jsonargparse>=99.1'."
    )
