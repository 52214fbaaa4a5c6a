"""The command line: ``lightning-noisy {fit,validate,test,predict,tune}``."""

from __future__ import annotations

import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from typing_extensions import override

from lightning_noisy import callbacks, data, heads, losses, networks  # noqa: F401  short class names resolve
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.modules import NoisyLabelModule
from lightning_noisy.tune import tune

_CKPT_KEYWORDS = ("best", "last", "hpc", "registry")
_DESCRIPTION = "Train classifiers on partly wrong labels. `lightning-noisy tune` searches arguments, see `tune --help`."
_FROM_WORKER = f"{NoisyLabelError.__name__}: "  # before the message in the traceback that a loader's worker hands on
_FRAMES = (
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Problem with",
    "Given value",
    "Subclass types",
    "a class path",
    "a dict",
)
"""How lines of jsonargparse's messages begin that tell no reason."""
_TWICE = "Found more than one stateful callback"  # Lightning's RuntimeError, for instance of an appended callback


def main(args: ArgsType = None) -> LightningCLI:
    """Run the command line.

    Every argument of module, data module and Trainer can stand in YAML; ``--print_config`` prints all of them. The
    resolved configuration is saved in the run's folder. With ``--ckpt_path`` the configuration still says what the
    model is; the checkpoint brings weights and state.

    Args:
        args: Arguments as a list; None takes those of the process.

    Returns:
        The CLI object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: With code 2 and one line on standard error, for input that cannot be used.
    """
    with _one_line_errors():
        return _NoisyLabelCLI(
            NoisyLabelModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"prog": "lightning-noisy", "description": _DESCRIPTION, "exit_on_error": False},
            args=args,
            auto_configure_optimizers=False,  # `--model.optimizer` is the one way
            load_from_checkpoint_support=False,  # checkpoints are the same as from Python
        )


def run() -> None:
    """The ``lightning-noisy`` command."""
    if sys.argv[1:2] == ["tune"]:
        with _one_line_errors():
            tune(sys.argv[2:], _fit)
    else:
        main()


def _fit(arguments: list[str]) -> Trainer:
    """Train as ``lightning-noisy fit`` does with these arguments."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")  # it finds those of `tune` in sys.argv
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


class _NoisyLabelCLI(LightningCLI):
    """LightningCLI whose configuration alone says what the model is."""

    def _parse_ckpt_path(self) -> None:
        # Lightning 2.6 would let the checkpoint's hyper-parameters, which are only the plain ones, replace the model.
        pass

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
        if isinstance(cause, (NoisyLabelError, MisconfigurationException)) or str(cause).startswith(_TWICE):
            return " ".join(str(cause).rpartition(_FROM_WORKER)[2].split())
    return _refused(str(error)) if isinstance(error, ArgumentError) else None


def _refused(message: str) -> str:
    """One line for the tree of jsonargparse's attempts: the argument, and what stands deepest in the first branch."""
    if not message.startswith("Parser key"):
        return " ".join(message.split())
    path: list[str] = []
    reasons: list[str] = []
    depth = 0
    for line in filter(str.strip, message.splitlines()):
        text, indent = line.strip(" -"), len(line) - len(line.lstrip())
        if reasons and indent < depth:
            break
        key = re.match(r'Parser key "(.+)":(.*)', text)
        if key is not None:
            path.append(key[1])
            text = key[2].strip()
        if text and not text.startswith(_FRAMES):
            reasons = [*reasons, text] if indent == depth else [text]
        depth = indent
    given = re.search(r"Given value: (?!NestedArg)(.*)", message)
    if given is not None and not any("Got value" in reason for reason in reasons):
        reasons.append(f"Got value: {given[1]}")
    return f"{'.'.join(path)}: {'; '.join(dict.fromkeys(reasons))}"
