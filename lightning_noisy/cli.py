"""The command line: ``lightning-noisy {fit,validate,test,predict,tune,recipes}``."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from typing_extensions import override

from lightning_noisy import callbacks, data, heads, losses, networks  # noqa: F401  short class names resolve
from lightning_noisy.config_option import ConfigOption
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.modules import StrategyModule
from lightning_noisy.private_api import ARGUMENTS_TWICE, CALLBACK_TWICE, ConfigurationAloneCLI, refusal
from lightning_noisy.recipes import recipe_list, run_name
from lightning_noisy.requirements import check_command_line
from lightning_noisy.state import check_members
from lightning_noisy.tune import CommandParser, tune

_CKPT_KEYWORDS = ("best", "last", "hpc", "registry")
_DESCRIPTION = (
    "Train classifiers on partly wrong labels. `lightning-noisy recipes` lists what `--config` takes beside files; "
    "`lightning-noisy tune` searches arguments, see `tune --help`."
)
_FROM_WORKER = f"{NoisyLabelError.__name__}: "  # before the message in the traceback that a loader's worker hands on
_LOGGER = "lightning.pytorch.loggers.TensorBoardLogger"


def main(args: Sequence[str] | None = None) -> LightningCLI:
    """Run the command line.

    Every argument of module, data module and Trainer can stand in YAML; ``--print_config`` prints all of them. A YAML
    may name others as its ``base`` (:func:`~lightning_noisy.recipes.config_chain`). The resolved configuration is saved
    in the run's folder, which is ``runs/<recipe>`` unless ``trainer.logger`` is given. With ``--ckpt_path`` the
    configuration still says what the model is; the checkpoint brings weights and state.

    Args:
        args: Arguments as a list; None takes those of the process.

    Returns:
        The CLI object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: With code 2 and one line on standard error, for input that cannot be used.
    """
    with _one_line_errors():
        check_command_line()
        return _NoisyLabelCLI(
            StrategyModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=_trainer_defaults(sys.argv[1:] if args is None else args),
            seed_everything_default=0,
            parser_kwargs={"prog": "lightning-noisy", "description": _DESCRIPTION, "exit_on_error": False},
            args=None if args is None else list(args),
            auto_configure_optimizers=False,  # `--model.optimizer` is the one way
            load_from_checkpoint_support=False,  # checkpoints are the same as from Python
        )


def run() -> None:
    """The ``lightning-noisy`` command."""
    own = {"tune": lambda arguments: tune(arguments, _fit), "recipes": _list_recipes}.get("".join(sys.argv[1:2]))
    if own is None:
        main()
    else:
        with _one_line_errors():
            own(sys.argv[2:])


def _list_recipes(arguments: Sequence[str]) -> None:
    parser = CommandParser(prog="lightning-noisy recipes", description="List what `fit --config NAME` takes by name.")
    parser.add_argument("filter", nargs="?", default="", metavar="FILTER", help="only names with this in them")
    print(recipe_list(parser.parse_args(arguments).filter))


def _trainer_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """A folder that is called as the recipe."""
    name = run_name(arguments)
    return {} if name is None else {"logger": {"class_path": _LOGGER, "init_args": {"save_dir": "runs", "name": name}}}


def _fit(arguments: list[str]) -> Trainer:
    """Train as ``lightning-noisy fit`` does with these arguments."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ARGUMENTS_TWICE)  # it finds those of `tune` in sys.argv
        return main(["fit", *arguments]).trainer


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Input that cannot be used ends the process with one line on standard error."""
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        print(f"lightning-noisy: error: {reason}", file=sys.stderr)
        raise SystemExit(2) from error


class _NoisyLabelCLI(ConfigurationAloneCLI):
    """The command line with ``base`` in configurations, and what Lightning or jsonargparse would say too late."""

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigOption, help="Configuration: a file or a recipe's name.")
        return parser

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(callbacks.PredictionWriter, "predictions")

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config.get(str(self.subcommand), self.config)
        path = config.get("ckpt_path")
        if path and path not in _CKPT_KEYWORDS and "://" not in path and not Path(path).exists():
            raise NoisyLabelError(f"Expected argument `ckpt_path` to be a checkpoint, but got {path!r}: no such file.")
        if isinstance(config.trainer.callbacks, Namespace):
            # For one callback that refuses its arguments, jsonargparse would say that it is no list.
            config.trainer.callbacks = [config.trainer.callbacks]

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        check_members(trainer)
        return trainer


class _SaveConfig(SaveConfigCallback):
    """Saves ``config.yaml`` in the run's folder. Where that is the working directory, a file there is the user's."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        target = Path(trainer.log_dir or ".", self.config_filename)
        users = target.exists() and target.parent.resolve() == Path.cwd()
        if not trainer.strategy.broadcast(users):
            super().setup(trainer, pl_module, stage)


def _reason(error: BaseException) -> str | None:
    """The line for the user, None where the traceback says more."""
    causes = [error]
    while causes[-1].__cause__ is not None:  # jsonargparse wraps the errors of constructors
        causes.append(causes[-1].__cause__)
    for cause in causes:
        if isinstance(cause, (NoisyLabelError, MisconfigurationException)) or str(cause).startswith(CALLBACK_TWICE):
            return " ".join(str(cause).rpartition(_FROM_WORKER)[2].split())
    return refusal(str(error)) if isinstance(error, ArgumentError) else None
