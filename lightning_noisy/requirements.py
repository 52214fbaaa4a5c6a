"""Versions that a part of the package needs beyond those that the whole of it does."""

from __future__ import annotations

from importlib.metadata import version

from lightning_utilities.core.imports import RequirementCache

from lightning_noisy.errors import NoisyLabelError

COMMAND_LINE = {"lightning": "2.6", "jsonargparse": "4.51"}
"""What ``lightning-noisy[cli]`` brings; callbacks, losses, heads and modules do with less."""

TUNE = {"optuna": "4.3"}
"""What ``lightning-noisy[tune]`` brings."""


def check_command_line() -> None:
    """Refuse installed versions that the command line cannot run with.

    Raises:
        NoisyLabelError: One is too old.
    """
    for name, oldest in COMMAND_LINE.items():
        if not RequirementCache(f"{name}>={oldest}"):
            raise NoisyLabelError(
                f"The command line needs {name}>={oldest}, but {version(name)} is installed: "
                f"pip install -U '{name}>={oldest}'."
            )


def check_tune() -> None:
    """Refuse to search without what it needs.

    Raises:
        NoisyLabelError: It is missing, or too old.
    """
    for name, oldest in TUNE.items():
        if not RequirementCache(f"{name}>={oldest}"):
            raise NoisyLabelError(
                f'`lightning-noisy tune` needs {name}>={oldest}: pip install "lightning-noisy[tune]".'
            )
