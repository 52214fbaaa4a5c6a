"""What the commands share that are not Lightning's."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.recipes import config_chain, config_values, is_file


class CommandParser(ArgumentParser):
    """Of a command that is not Lightning's; it refuses in one line, and takes no half-written option.

    Args:
        name: The command.
        description: What it does; lines stay as they are.
    """

    def __init__(self, name: str, description: str) -> None:
        program = f"lightning-noisy {name}"
        super().__init__(program, None, description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
        self.add_argument("--debug", action="store_true", help="keep the traceback of an error")

    @override
    def error(self, message: str) -> NoReturn:
        raise NoisyLabelError(f"{message}; see `{self.prog} --help`.")


def config_hashes(given: Sequence[str]) -> dict[str, str]:
    """Path -> SHA-256 of the configuration files among arguments of ``fit``, and of all that they go on top of."""
    chains = [config.path for value in config_values(given) for config in config_chain(value)]
    words = [Path(word) for argument in given for word in argument.split("=", 1) if word.endswith((".yaml", ".yml"))]
    files = dict.fromkeys([*filter(None, chains), *filter(is_file, words)])
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
