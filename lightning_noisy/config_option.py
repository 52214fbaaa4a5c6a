"""The option ``--config`` of the command line."""

from __future__ import annotations

from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from jsonargparse.typing import Path_fr
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.data_option import noise_stays_with_its_data
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import refusal
from lightning_noisy.recipes import Config, config_chain


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
            raise NoisyLabelError(f"{refusal(str(error))} (in '{path}')") from error


def _files(read: Any) -> set[Path]:
    """The files that were read so far."""
    return {Path(path).resolve() for path in read or [] if path is not None}
