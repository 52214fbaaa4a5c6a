"""The options ``--config`` and ``--debug`` of the command line."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from jsonargparse.typing import Path_fr
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.cli.data_option import noise_stays_with_its_data
from lightning_noisy.cli.near_names import did_you_mean, with_near_names
from lightning_noisy.cli.private_api import names_of, refusal
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.recipes import Config, config_chain
from lightning_noisy.recipes.text import argument_names


class ConfigOption(ActionConfigFile):
    """Reads a configuration after all that it goes on top of, each file once, in its first place.

    jsonargparse gets the text without ``base``, in the file's folder, as if it had opened the file itself.
    """

    @override
    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        chain = config_chain(values)
        if chain[-1].file in _files(cfg.get(self.dest)):
            rank_zero_warn(f"Of the configurations '{chain[-1].path}' counts once, in its first place.")
        with noise_stays_with_its_data(cfg, [config.text for config in chain]):
            for config in chain:
                _check_names(parser, config)
                self._add(parser, cfg, config, option_string)

    def _add(self, parser: Any, cfg: Any, config: Config, option_string: str | None) -> None:
        if config.path is None:
            super().__call__(parser, cfg, config.text, option_string)  # type: ignore[no-untyped-call]
        elif config.file not in _files(cfg.get(self.dest)):
            path = Path_fr(str(config.path))
            with path.relative_path_context():
                self._read(parser, cfg, config.text, config.path)
            cfg[self.dest][-1] = path

    def _read(self, parser: Any, cfg: Any, text: str, path: Path) -> None:
        try:
            super().__call__(parser, cfg, text)  # type: ignore[no-untyped-call]
        except (ArgumentError, TypeError) as error:
            raise NoisyLabelError(f"{with_near_names(refusal(str(error)), error)} (in '{path}')") from error


def _check_names(parser: Any, config: Config) -> None:
    """Refuse names that are none, which jsonargparse passes over where nothing or a subcommand follows."""
    arguments = names_of(parser)
    top = {name.partition(".")[0] for name in arguments}
    for name in argument_names(config.text, config.path):
        parts = name.removesuffix("+").split(".")
        asked = ".".join(parts[: 2 if parts[0] == "trainer" else 1])
        if asked not in {*arguments, *top}:
            where = "" if config.path is None else f" (in '{config.path}')"
            meant = did_you_mean(asked, [*arguments, *top]) or f": expected one of {', '.join(sorted(top))}"
            raise NoisyLabelError(f"Option '{name}' is not accepted{meant}{where}")


class DebugOption(Action):
    """Is looked for by whoever handles errors; no configuration has it."""

    def __init__(self, option_strings: Sequence[str], **_: Any) -> None:
        super().__init__(option_strings, SUPPRESS, nargs=0, default=SUPPRESS, help="Keep the traceback of any error.")

    @override
    def __call__(self, *_: Any) -> None:
        """Nothing to do."""


def _files(read: Any) -> set[Path]:
    """The files that were read so far."""
    return {Path(path).resolve() for path in read or [] if path is not None}
