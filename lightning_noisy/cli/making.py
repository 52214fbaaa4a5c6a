"""What a configuration names is made here, so that a class that refuses its arguments is named by the user's key."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Union, get_args, get_origin

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_noisy.cli.origin import Origin
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.modules import StrategyModule


def name_refused_arguments(parser: LightningArgumentParser, config: Namespace) -> None:
    """Have all classes of a configuration made with errors that name its keys, also optimizers, which are made later.

    Args:
        parser: Makes the classes.
        config: What they are made of.

    Raises:
        NoisyLabelError: A function in the place of a class, with no word of what it returns: jsonargparse would call
            whatever there is, with all that it does beside.
    """
    for key, class_path in _classes(config, ""):
        named = resolve_name(class_path)
        if not isinstance(named, type) and "return" not in getattr(named, "__annotations__", {}):
            wanted = "a class, or a function whose annotation says what it returns"
            raise NoisyLabelError(f"Expected argument `{key}` to be {wanted}, but got {class_path!r}.")
    parser.add_instantiator(partial(_make, _keys(config)), object)


def check_schedule(module: object) -> None:
    """Refuse a schedule that fails when an epoch ends, before the first one begins.

    Raises:
        NoisyLabelError: The scheduler refuses its first step.
    """
    if not isinstance(module, StrategyModule) or module.make_lr_scheduler is None:
        return
    own = type(module).configure_optimizers is not StrategyModule.configure_optimizers
    if own or next(module.parameters(), None) is None:  # `configure_model` makes them later
        return
    scheduler = module.make_lr_scheduler(module.make_optimizer(module.parameters()))
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):  # needs a metric, divides by nothing
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there was no step of the optimizer
            scheduler.step()
    except Exception as error:
        if not Origin.of(error).in_library:
            raise
        raise NoisyLabelError(
            f"`model.lr_scheduler` ({type(scheduler).__name__}) fails at the end of the first epoch: {error}; mend its "
            "arguments."
        ) from error


def _make(keys: dict[str, list[str]], kind: type, *args: Any, **kwargs: Any) -> Any:
    found = keys.get(kind.__name__, [])
    key = found[0] if len(found) == 1 else kind.__name__
    for name, value in kwargs.items():
        if value is None and not _takes_none(kind, name):
            raise NoisyLabelError(f"Expected argument `{key}.{name}` to have a value, but got null: leave it out.")
    try:
        return kind(*args, **kwargs)
    except Exception as error:
        if isinstance(error, NoisyLabelError) or not Origin.of(error).in_library:
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items() if _is_said(kind, name, value))
        reason = " ".join((str(error) or type(error).__name__).split("\n\n")[0].split())
        raise NoisyLabelError(f"`{key}` cannot be made as {kind.__name__}({given}): {reason}") from error


def _keys(config: Namespace) -> dict[str, list[str]]:
    """Name of a class -> the keys where the configuration names it."""
    found: dict[str, list[str]] = {}
    for key, class_path in _classes(config, ""):
        found.setdefault(class_path.rpartition(".")[2], []).append(key)
    return found


def _classes(config: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(config, list):
        for value in config:
            name = str(value.get("class_path")).rpartition(".")[2] if isinstance(value, Namespace) else path
            yield from _classes(value, name)
    if isinstance(config, Namespace):
        if isinstance(config.get("class_path"), str):
            yield path, config.class_path
        for name, value in vars(config).items():
            within = path if name == "init_args" else f"{path}.{name}".lstrip(".")
            yield from _classes(value, within)


def _takes_none(kind: type, name: str) -> bool:
    """Whether an argument of a class may be None, as far as its annotation tells."""
    construct = _owner(kind, name)
    if construct is None:
        return True
    try:
        hint = typing.get_type_hints(construct).get(name, Any)
    except (NameError, TypeError):  # names that only a type checker sees
        return True
    return _default(construct, name) is None or _has_none(hint)


def _is_said(kind: type, name: str, value: object) -> bool:
    """Whether a value tells the user something: plain, and not the default."""
    construct = _owner(kind, name)
    plain = value is None or isinstance(value, (bool, int, float, str))
    return plain and (construct is None or _default(construct, name) != value)


def _owner(kind: type, name: str) -> Callable[..., Any] | None:
    """The constructor that takes an argument: of the class, or of the base that it hands it on to."""
    constructs = (vars(owner).get("__init__") for owner in inspect.getmro(kind))
    functions = (construct for construct in constructs if inspect.isfunction(construct))
    return next((construct for construct in functions if name in inspect.signature(construct).parameters), None)


def _default(construct: Callable[..., Any], name: str) -> object:
    return inspect.signature(construct).parameters[name].default


def _has_none(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(map(_has_none, get_args(hint)))
    return hint in (Any, None, type(None), object) or isinstance(hint, typing.TypeVar)
