"""A command line beside versions that are too old for it; the library beside them is tried by ``.ci/lower_bounds``."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from lightning_noisy import requirements
from lightning_noisy.cli.tune import tune
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.requirements import check_command_line, check_tune
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


def test_a_search_without_optuna_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tune()
    monkeypatch.setattr(requirements, "TUNE", {"optuna": "99.1"})
    with pytest.raises(NoisyLabelError) as error:
        tune(["--search", "a=1"], fit=lambda *_: pytest.fail("trained"))
    assert str(error.value) == '`lightning-noisy tune` needs optuna>=99.1: pip install "lightning-noisy[tune]".'
