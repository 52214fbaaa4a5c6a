"""What ``lightning-noisy`` says by itself: its commands, and its versions."""

from __future__ import annotations

import platform
from difflib import get_close_matches
from importlib.metadata import version

from lightning_noisy.errors import NoisyLabelError, printable

COMMANDS = {
    "fit": "train: --config FILE or RECIPE, any argument of model, data and Trainer",
    "validate": "evaluate a checkpoint on the validation set",
    "test": "evaluate a checkpoint on the test set",
    "predict": "write predictions of a checkpoint: of the test set, or of --images PATH",
    "audit": "your own folder, table or features: a list of labels that are probably wrong",
    "report": "that list for a run that has ended, from its checkpoint",
    "tune": "search arguments by noisy validation accuracy, then train on all data",
    "compare": "configurations or finished runs over seeds, in one table and figure",
    "embed": "features of your images by a pretrained network, for FeaturesDataModule",
    "doctor": "what this machine has; with --config: whether it trains, shapes, memory, time",
    "recipes": "list the settings of papers that --config takes by name",
}
"""Name -> what it does, in a line."""


def overview() -> str:
    """Every command with a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "Train classifiers on partly wrong labels.",
            "",
            *lines,
            "",
            "`lightning-noisy COMMAND --help` says more. Begin with: lightning-noisy fit --config quickstart",
        ]
    )


def unknown_command(name: str) -> NoisyLabelError:
    """What is said of a command that is none."""
    near = get_close_matches(name, COMMANDS, n=1)
    meant = f"did you mean `{near[0]}`?" if near else "`lightning-noisy` alone lists all."
    return NoisyLabelError(f"'{printable(name)}' is no command: {meant}")


def versions() -> str:
    """Of the package, of what it stands on, and of Python."""
    names = ("lightning-noisy", "lightning", "torch", "torchvision")
    return ", ".join([*(f"{name} {version(name)}" for name in names), f"Python {platform.python_version()}"])
