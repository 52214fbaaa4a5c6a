"""Whether a checkpoint belongs to a run, asked before anything is written."""

from __future__ import annotations

import copy
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_noisy.checkpoints.io import BROKEN_FILE, load_whole, local_path, previous_path, readable_path
from lightning_noisy.checkpoints.structure import (
    difference,
    impossible_loader,
    impossible_position,
    is_known,
    wrong_optimizer,
    wrong_run_state,
    wrong_scheduler,
)
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import Callback

KEYWORDS = ("best", "last", "hpc", "registry")
"""What Lightning takes for a path, and resolves itself."""

RUN_STATE = "lightning_noisy"
"""Under this name checkpoints hold what a run keeps, among the states of callbacks."""

_OWN = "resume with that which wrote it"

NOT_LOADED = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What the `load_state_dict` of a callback raises where a state is not its own."""


def local_checkpoint(path: str | Path | None) -> Path | None:
    """The file behind a ``ckpt_path``; None for what Lightning resolves, and for URLs."""
    return None if path is None or str(path) in KEYWORDS else local_path(path)


def check_file(path: str | Path | None) -> None:
    """Refuse what is no file that could be read: nothing, an empty one, a folder, a pipe.

    Raises:
        NoisyLabelError: One of those.
    """
    target = local_checkpoint(path)
    if target is None or (not target.exists() and previous_path(target).is_file()):
        return
    reason = None
    if not target.exists():
        reason = "no such file"
    elif target.is_dir() and not any((target / name).exists() for name in (".metadata", "latest", "checkpoint")):
        reason = "a folder; name the file inside"
    elif not target.is_dir() and not stat.S_ISREG(target.stat().st_mode):
        reason = "no regular file"
    elif target.is_file() and target.stat().st_size == 0 and not previous_path(target).is_file():
        reason = "an empty file; take an earlier checkpoint"
    if reason is not None:
        raise NoisyLabelError(f"Expected argument `ckpt_path` to be a checkpoint, but got {str(path)!r}: {reason}.")


def check_checkpoint(
    trainer: Trainer, module: LightningModule, path: str | Path | None, command: str, weights_only: bool | None = None
) -> dict[str, Any] | None:
    """Refuse a checkpoint that a run cannot use, before Lightning loads it.

    Args:
        trainer: The Trainer, not yet running.
        module: The module that gets the weights.
        path: As given to the Trainer.
        command: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        weights_only: As given to the Trainer.

    Returns:
        What it holds; None where Lightning resolves the path, and for other file systems and sharded checkpoints.

    Raises:
        NoisyLabelError: It cannot be read, is no checkpoint of Lightning, lacks what training goes on with, or belongs
            to another model or run.
    """
    check_file(path)
    target = local_checkpoint(path)
    if target is None or target.is_dir():
        return None
    checkpoint: dict[str, Any] = read_checkpoint(Path(readable_path(target, weights_only)), weights_only)
    check_content(checkpoint, training=command == "fit")
    if is_known(type(module).on_load_checkpoint):
        check_weights(checkpoint["state_dict"], module)
    loop = f"{command}_loop"
    check_positions(checkpoint, loop, getattr(trainer, loop).state_dict())
    check_run_state(checkpoint, needed=command == "fit")
    check_callbacks(checkpoint, trainer.callbacks)  # type: ignore[attr-defined]
    if command == "fit" and 0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) < checkpoint["epoch"]:
        raise _refused(f"it has {checkpoint['epoch']} epochs behind it", f"raise max_epochs={trainer.max_epochs}")
    return checkpoint


def read_checkpoint(path: Path, weights_only: bool | None = None, lazily: bool = False) -> Any:
    """What a file holds; arguments as for :func:`load_whole`.

    Raises:
        NoisyLabelError: It is no whole file of ``torch.save``, or one that holds code.
    """
    try:
        return load_whole(path, weights_only, lazily)
    except BROKEN_FILE as error:
        if "allowed global" in str(error):
            way = "it holds objects of other packages; if you trust it, pass `weights_only=False`"
        else:
            way = "it is cut short or no file of torch.save; take an earlier one"
        raise _refused(f"it cannot be read ({type(error).__name__})", way) from error


def check_content(checkpoint: Any, training: bool) -> None:
    """Refuse what is no checkpoint of Lightning, and for training one of weights alone."""
    if not isinstance(checkpoint, dict):
        raise _refused(f"it holds a {type(checkpoint).__name__}", "take one that a Trainer has written")
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        alone = bool(checkpoint) and all(isinstance(value, Tensor) for value in checkpoint.values())
        what = "it is a state dict alone" if alone else "it has no weights under `state_dict`"
        raise _refused(what, "take one that a Trainer has written, or load these weights in your module")
    if not isinstance(checkpoint.get("pytorch-lightning_version"), str):
        raise _refused("it does not say which version of Lightning wrote it", "take one that a Trainer has written")
    for name, kind in (("optimizer_states", list), ("lr_schedulers", list), ("callbacks", dict), ("loops", dict)):
        if training and name not in checkpoint:
            raise _refused(
                f"it holds weights without `{name}`", "training goes on from one with `save_weights_only=False`"
            )
        if name in checkpoint and not isinstance(checkpoint[name], kind):
            raise _refused(f"its `{name}` is no {kind.__name__}", "take another one")


def check_weights(saved: Mapping[str, Tensor], module: LightningModule, names: bool = True) -> None:
    """Refuse weights of another model: other names, unless the module or the caller allows them, or other shapes."""
    own = module.state_dict()
    if module.strict_loading and names:
        missing, foreign = [key for key in own if key not in saved], [key for key in saved if key not in own]
        if missing or foreign:
            what = f"it has no `{missing[0]}`" if missing else f"its `{foreign[0]}` is no part of this model"
            raise _refused(what, f"{len(missing) + len(foreign)} names differ; use the model that wrote it")
    for name, value in own.items():
        if name in saved and saved[name].shape != value.shape:
            shapes = f"{tuple(saved[name].shape)}, in this run {tuple(value.shape)}"
            raise _refused(f"its `{name}` has shape {shapes}", "use the number of classes and sizes that wrote it")


def check_positions(checkpoint: Mapping[str, Any], loop: str, fresh: Mapping[str, Any]) -> None:
    """Refuse positions that no run has: missing, negative, more ended than begun, or that contradict each other.

    Args:
        checkpoint: The checkpoint; one without positions has weights alone.
        loop: Name of the loop that takes them over.
        fresh: The loop's own state, for its structure.
    """
    if "loops" not in checkpoint:
        return
    saved = checkpoint["loops"].get(loop)
    built = {**fresh, "state_dict": {}}  # loaders save what they like, and nothing before they are there
    wrong = difference(saved, built, loop) or impossible_position(saved, loop)
    if wrong is None and loop == "fit_loop":
        wrong = _contradiction(checkpoint, saved)
    if wrong is not None:
        raise _refused(f"its position is impossible: {wrong}", "take another one")


def check_run_state(checkpoint: Mapping[str, Any], needed: bool) -> None:
    """Refuse a run's state that is not whole.

    Args:
        checkpoint: The checkpoint.
        needed: A checkpoint without it is refused.
    """
    states = checkpoint.get("callbacks", {})
    if RUN_STATE not in states:
        if needed:
            raise _refused("it has no state of lightning_noisy", "start afresh, or from a checkpoint of this package")
        return
    wrong = wrong_run_state(states[RUN_STATE])
    if wrong is not None:
        raise _refused(f"what its run has kept is not whole: {wrong}", "take another one")


def check_callbacks(checkpoint: Mapping[str, Any], callbacks: Sequence[Callback]) -> None:
    """Refuse states that the callbacks of this run cannot take over; copies of them try."""
    states = checkpoint.get("callbacks", {})
    sections = states.get(RUN_STATE, {}).get("sections", {})
    for callback in callbacks:
        key = callback.state_key
        try:
            if key in states:
                _check_structure(callback, states[key])
                copy.deepcopy(callback).load_state_dict(copy.deepcopy(states[key]))
            if hasattr(callback, "section") and callback.section.key in sections:
                copy.deepcopy(callback).section.load_state_dict(sections[callback.section.key])
        except NOT_LOADED as error:
            what = f"{type(callback).__name__} cannot take over its state ({type(error).__name__}: {error})"
            raise _refused(" ".join(what.split()), "take another one") from error


def check_optimizers(checkpoint: Mapping[str, Any], optimizers: Sequence[Optimizer], schedulers: Sequence[Any]) -> None:
    """Refuse the state of other optimizers or schedules of the learning rate."""
    saved, rates = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    if len(saved) != len(optimizers) or len(rates) != len(schedulers):
        counts = (
            f"{len(saved)} optimizers and {len(rates)} schedulers, this run {len(optimizers)} and {len(schedulers)}"
        )
        raise _refused(f"it has {counts}", _OWN)
    for state, optimizer in zip(saved, optimizers, strict=True):
        wrong = difference(state, {}, "optimizer") or wrong_optimizer(state, optimizer)
        if wrong is not None:
            raise _refused(f"its optimizer is not the {type(optimizer).__name__} of this run: {wrong}", _OWN)
    for state, scheduler in zip(rates, schedulers, strict=True):
        wrong = wrong_scheduler(state, scheduler.state_dict())
        if wrong is not None:
            raise _refused(f"its scheduler is not the {type(scheduler).__name__} of this run: {wrong}", _OWN)


def _check_structure(callback: Callback, state: Any) -> None:
    """Refuse what is not built as the state of a callback of Lightning or of ours; others know best what theirs is."""
    if is_known(type(callback)):
        wrong = difference(state, callback.state_dict(), "state")
        if wrong is not None:
            raise ValueError(wrong)


def _contradiction(checkpoint: Mapping[str, Any], loop: Mapping[str, Any]) -> str | None:
    """Where the epoch, the step or the loaders of a checkpoint are not those of its loops."""
    epoch, step = checkpoint.get("epoch"), checkpoint.get("global_step")
    epochs = loop["epoch_progress"]["current"]["completed"]
    steps = [
        loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"],
        loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"],
    ]
    if not (isinstance(epoch, int) and isinstance(step, int)) or epoch != epochs or step not in steps:
        return f"epoch {epoch} and step {step}, but its loops have {epochs} and {max(steps)}"
    loaders = loop["state_dict"].get("combined_loader", [])
    if not isinstance(loaders, list):
        return "its loaders are no list"
    return next(filter(None, (impossible_loader(loader, loop) for loader in loaders)), None)


def _refused(what: str, way_out: str) -> NoisyLabelError:
    return NoisyLabelError(f"The checkpoint cannot be used: {what}; {way_out}.")
