"""What the command line looks at before anything is made, where Lightning would say nothing, or say it too late."""

from __future__ import annotations

import math
from pathlib import Path
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
        new_images = config.get("images") is not None
        check_argument(not (new_images and config.untrained), "untrained", "false with `--images`", config.untrained)
        untrained = None if new_images else config.untrained
        check_trained(subcommand, path, untrained, newest_checkpoint(config.get("config")))
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


def check_trained(subcommand: str, checkpoint: Any, untrained: bool | None, known: Path | None = None) -> None:
    """Refuse to evaluate random weights, unless that is asked for.

    The keyword ``last`` may find no file, which Lightning takes for no checkpoint: that shows when a run starts.

    Args:
        subcommand: What was asked for.
        checkpoint: The checkpoint; None without.
        untrained: Whether random weights are meant; None where that is no way out.
        known: A checkpoint that the run has left, for the message.

    Raises:
        NoisyLabelError: There is no checkpoint.
    """
    if checkpoint is None and not untrained:
        one = "the file that a `fit` has left" if known is None else f"'{known}', which this run has left"
        way_out = "" if untrained is None else ", or `--untrained true` if you mean it"
        raise NoisyLabelError(
            f"`{subcommand}` without a checkpoint would use random weights: give `--ckpt_path` {one}{way_out}."
        )


def newest_checkpoint(configs: Any) -> Path | None:
    """The checkpoint that was written last in the folders of some configuration files; None without any."""
    folders = {Path(str(path)).resolve().parent for path in configs or () if path is not None}
    found = [path for folder in folders for path in (folder / "checkpoints").glob("*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
