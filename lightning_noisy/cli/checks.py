"""What the command line looks at before anything is made, where Lightning would say nothing, or say it too late."""

from __future__ import annotations

import math
from typing import Any

from jsonargparse import Namespace

from lightning_noisy.checkpoints.check import check_file
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count

_NO_CALLBACK = ("lightning.pytorch.callbacks.callback.Callback", "lightning.pytorch.Callback", "lightning.Callback")
_COUNTS = ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")


def check_config(subcommand: str, config: Namespace) -> None:
    """Refuse what can be seen in the arguments alone.

    Args:
        subcommand: ``fit`` or another one.
        config: Its arguments. One callback becomes a list of one.

    Raises:
        NoisyLabelError: A NaN, a seed or a count outside its range, no Trainer, a checkpoint that is not there, or
            none where one is evaluated.
    """
    _check_numbers(config, "")
    seed, trainer, path = config.seed_everything, config.trainer, config.get("ckpt_path")
    in_range = seed is None or isinstance(seed, bool) or 0 <= seed < 2**32
    check_argument(in_range, "seed_everything", "an int in [0, 4294967296)", seed)
    for name in ("trainer", "predictions"):
        check_argument(isinstance(config[name], Namespace), name, "a mapping of arguments", config[name])
    for name in _COUNTS:
        check_count(trainer[name], f"trainer.{name}", optional=name == "check_val_every_n_epoch")
    clip, interval = trainer.gradient_clip_val, trainer.log_every_n_steps
    check_argument(clip is None or clip >= 0, "trainer.gradient_clip_val", "a number of at least 0, or None", clip)
    check_count(interval, "trainer.log_every_n_steps", least=0, optional=True)
    check_file(path)
    if subcommand != "fit":
        check_trained(subcommand, path, config.untrained)
    if isinstance(trainer.callbacks, Namespace):
        # For one callback that refuses its arguments, jsonargparse would say that it is no list.
        trainer.callbacks = [trainer.callbacks]
    if any(callback.class_path in _NO_CALLBACK for callback in trainer.callbacks or []):
        raise NoisyLabelError("Expected `trainer.callbacks` to name classes, but one has no `class_path`.")


def _check_numbers(value: Any, path: str) -> None:
    """Refuse what is no number, which comparisons let through."""
    parts = vars(value) if isinstance(value, Namespace) else value if isinstance(value, dict) else None
    for name, part in parts.items() if parts is not None else enumerate(value) if isinstance(value, list) else ():
        _check_numbers(part, path if name == "init_args" else f"{path}.{name}".lstrip("."))
    if isinstance(value, float) and math.isnan(value):
        raise NoisyLabelError(f"Expected argument `{path}` to be a number, but got nan.")


def check_trained(subcommand: str, checkpoint: Any, untrained: bool) -> None:
    """Refuse to evaluate random weights, unless that is asked for.

    The keyword ``last`` may find no file, which Lightning takes for no checkpoint: that shows when a run starts.

    Raises:
        NoisyLabelError: There is no checkpoint.
    """
    if checkpoint is None and not untrained:
        raise NoisyLabelError(
            f"`{subcommand}` without a checkpoint would use random weights: give `--ckpt_path` the file that a `fit` "
            "has left, or `--untrained true` if you mean it."
        )
