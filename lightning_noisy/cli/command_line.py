"""The command line: ``lightning-noisy {fit,validate,test,predict,audit,report,tune,compare,embed,doctor,recipes}``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from typing_extensions import override

from lightning_noisy import callbacks, data, heads, losses, networks  # noqa: F401  short class names resolve
from lightning_noisy.checkpoints import AtomicCheckpointIO
from lightning_noisy.checkpoints.check import local_checkpoint
from lightning_noisy.cli.audit import audit
from lightning_noisy.cli.checkpoint import check_resume
from lightning_noisy.cli.checks import check_config
from lightning_noisy.cli.compare import compare_runs
from lightning_noisy.cli.config_option import ConfigOption, DebugOption
from lightning_noisy.cli.data_option import noise_stays_with_its_data
from lightning_noisy.cli.doctor import doctor
from lightning_noisy.cli.embed import embed
from lightning_noisy.cli.errors import DEBUG, one_line_errors
from lightning_noisy.cli.making import check_schedule, name_refused_arguments
from lightning_noisy.cli.new_images import SOME_SKIPPED, images_to_predict
from lightning_noisy.cli.optimizer_option import sam_keeps_the_optimizer
from lightning_noisy.cli.overview import COMMANDS, overview, unknown_command, versions
from lightning_noisy.cli.parser import CommandParser
from lightning_noisy.cli.private_api import ConfigurationAloneCLI, as_command_line, watch_option
from lightning_noisy.cli.report import report
from lightning_noisy.cli.start import Start
from lightning_noisy.cli.tune import tune
from lightning_noisy.modules import StrategyModule
from lightning_noisy.networks.pretrained import weights_come_later
from lightning_noisy.private_api import has_own_checkpoint_io
from lightning_noisy.recipes import TENSORBOARD, recipe_list, run_name
from lightning_noisy.requirements import check_command_line
from lightning_noisy.state import check_members

_DESCRIPTION = (
    "Train classifiers on partly wrong labels. `lightning-noisy recipes` lists what `--config` takes beside files; "
    "`lightning-noisy tune` searches arguments, see `tune --help`."
)


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
        SystemExit: With code 2 and one line on standard error, for input that cannot be used; nothing is left behind.
            ``--debug`` keeps the traceback.
    """
    return _run(args, None)


def _run(args: Sequence[str] | None, attach: Callable[[Trainer], None] | None) -> LightningCLI:
    """As :func:`main`, and ``attach`` is called with the Trainer before it starts."""
    given, start = sys.argv[1:] if args is None else list(args), Start()
    with one_line_errors(given, start):
        check_command_line()
        return _NoisyLabelCLI(
            start,
            attach,
            StrategyModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=_trainer_defaults(given),
            seed_everything_default=0,
            parser_kwargs={"prog": "lightning-noisy", "description": _DESCRIPTION, "exit_on_error": False},
            args=None if args is None else given,
            auto_configure_optimizers=False,  # `--model.optimizer` is the one way
            load_from_checkpoint_support=False,  # checkpoints are the same as from Python
        )


def run() -> None:
    """The ``lightning-noisy`` command."""
    start = Start()
    own: dict[str, Callable[[list[str]], object]] = {
        "tune": lambda arguments: tune(arguments, _fit),
        "audit": lambda arguments: audit(arguments, _fit, start),
        "compare": compare_runs,
        "embed": embed,
        "report": report,
        "doctor": lambda arguments: doctor(arguments, _fit),
        "recipes": _list_recipes,
        "--version": lambda arguments: print(versions()),
        **dict.fromkeys(("", "-h", "--help"), lambda arguments: print(overview())),
    }
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked.isalpha() and asked not in COMMANDS:
        with one_line_errors(sys.argv, start):
            raise unknown_command(asked)
    if asked not in own:
        if getattr(main().datamodule, "skipped", None):
            sys.exit(SOME_SKIPPED)
    else:
        with one_line_errors(sys.argv, start):
            own[asked](sys.argv[2:])


def _list_recipes(arguments: Sequence[str]) -> None:
    parser = CommandParser("recipes", "List what `fit --config NAME` takes by name.")
    parser.add_argument("filter", nargs="?", default="", metavar="FILTER", help="only names with this in them")
    print(recipe_list(parser.parse_args(arguments).filter))


def _trainer_defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """A folder that is called as the recipe."""
    name = run_name(arguments)
    if name is None:
        return {}
    return {"logger": {"class_path": TENSORBOARD, "init_args": {"save_dir": "runs", "name": name}}}


def _fit(arguments: list[str], attach: Callable[[Trainer], None] | None = None) -> Trainer:
    """Train as ``lightning-noisy fit`` does with these arguments."""
    with as_command_line(["fit", *arguments]):
        return _run(None, attach).trainer


class _NoisyLabelCLI(ConfigurationAloneCLI):
    """The command line with ``base`` in configurations, and what Lightning or jsonargparse would say too late."""

    def __init__(self, start: Start, attach: Callable[[Trainer], None] | None, *args: Any, **kwargs: Any) -> None:
        self.start, self.attach = start, attach
        super().__init__(*args, **kwargs)

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=ConfigOption, help="Configuration: a file or a recipe's name.")
        parser.add_argument(DEBUG, action=DebugOption)
        return parser

    @override
    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        watch_option(parser, "model", lambda read, value: sam_keeps_the_optimizer(read))
        watch_option(parser, "data", lambda read, value: noise_stays_with_its_data(read, [f"data: {value}"]))

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(callbacks.PredictionWriter, "predictions")

    @override
    def add_subcommand_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        if subcommand != "fit":
            parser.add_argument("--untrained", type=bool, default=False, help="Do without `ckpt_path`: random weights.")
        if subcommand == "predict":
            images = "Predict these instead of the test set: a folder, an image, or a CSV table of paths."
            parser.add_argument("--images", type=str | None, default=None, help=images)
            parser.add_argument("--image_column", type=str | None, default=None, help="Column of the table's paths.")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        check_config(str(self.config.get("subcommand")), self.config[self.config.subcommand])

    @override
    def before_instantiate_classes(self) -> None:
        name_refused_arguments(self.parser, self.config[self.subcommand])

    @override
    def instantiate_classes(self) -> None:
        # A keyword such as "last" may find no checkpoint, and the fit then starts from what is made here.
        loaded = local_checkpoint(self.config[self.subcommand].get("ckpt_path")) is not None
        with weights_come_later() if loaded else nullcontext():
            super().instantiate_classes()

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        self.start.watch(trainer, self.subcommand == "fit" or self.config[self.subcommand].untrained)
        if self.attach is not None:
            self.attach(trainer)
        check_members(trainer)
        if not has_own_checkpoint_io(trainer):
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def before_fit(self) -> None:
        """Called by Lightning when all is made."""
        check_schedule(self.model)
        self.before_validate()

    def before_validate(self) -> None:
        """Ask whether the checkpoint belongs to the run before anything is written."""
        config, command = self.config[self.subcommand], str(self.subcommand)
        check_resume(self.trainer, self.model, config.get("ckpt_path"), command, config.get("weights_only"))

    before_test = before_validate

    def before_predict(self) -> None:
        """The same, and images that are named take the place of the run's data."""
        self.before_validate()
        config = self.config[self.subcommand]
        if config.images is not None:
            self.datamodule = images_to_predict(config, self.datamodule)


class _SaveConfig(SaveConfigCallback):
    """Saves ``config.yaml`` in the run's folder, of what trains alone: a fit's configuration stays what it was.

    Where that folder is the working directory, a file there is the user's.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        target = Path(trainer.log_dir or ".", self.config_filename)
        users = target.exists() and target.parent.resolve() == Path.cwd()
        if not trainer.strategy.broadcast(users):
            super().setup(trainer, pl_module, stage)
