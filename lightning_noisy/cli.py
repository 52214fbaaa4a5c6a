"""The command line: ``lightning-noisy {fit,validate,test,predict}``."""

from __future__ import annotations

import sys

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningCLI

from lightning_noisy import callbacks, data, heads, losses, networks  # noqa: F401  short class names resolve
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.modules import NoisyLabelModule


def main(args: ArgsType = None) -> LightningCLI:
    """Run the command line.

    Every argument of module, data module and Trainer can stand in YAML; ``--print_config`` prints all of them. The
    resolved configuration is saved in the run's folder.

    Args:
        args: Arguments as a list; None takes those of the process.

    Returns:
        The CLI object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: With code 2 and one line on standard error, for input that cannot be used.
    """
    try:
        return LightningCLI(
            NoisyLabelModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"description": "Train classifiers on data whose labels are partly wrong."},
            args=args,
        )
    except (NoisyLabelError, MisconfigurationException) as error:
        print(f"lightning-noisy: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def run() -> None:
    """The ``lightning-noisy`` command."""
    main()
