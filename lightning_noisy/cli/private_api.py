"""Everything that the command line uses of Lightning, jsonargparse and PyTorch beyond what they document, with why.

``tests/test_private_api.py`` fails by name when a version no longer has one of them.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Union, get_args, get_origin

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch import distributed as dist


def first_of_the_processes(rank: int) -> bool:
    """Whether no other process of a run has asked this before; until processes are a group, whether it is the first.

    The group's store answers, which needs no collective: a process that fails cannot count on the others.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rank == 0
    try:
        return bool(dist.distributed_c10d._get_default_store().add("lightning_noisy/failed", 1) == 1)
    except RuntimeError:  # its process is gone, and has spoken
        return rank == 0


class ConfigurationAloneCLI(LightningCLI):
    """LightningCLI whose configuration alone says what the model is, and with arguments for some subcommands alone."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """As Lightning does, but 1 stays an int where a float may come as well: 1 batch, not 1.0 of all.

        ``typing`` takes ``Optional[Union[int, float]]`` for whatever order was written first in the process.
        """
        super().add_core_arguments_to_parser(parser)
        for action in parser._actions:
            hint = getattr(action, "_typehint", None)
            kinds = get_args(hint) if get_origin(hint) is Union else ()
            if int in kinds and float in kinds:
                ordered = (int, *(kind for kind in kinds if kind is not int))
                setattr(action, "_typehint", Union[ordered])  # noqa: B010, UP007  argparse's Action has none

    def add_subcommand_arguments(self, parser: LightningArgumentParser, subcommand: str) -> None:
        """Add arguments to the parser of one subcommand."""

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_subcommand_arguments(parser, subcommand)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Not done: since Lightning 2.6 hyper-parameters of a checkpoint, only the plain ones, replace the model."""


def names_of(parser: LightningArgumentParser) -> list[str]:
    """What a parser's configuration may say: its arguments, with dots where they are in groups, or its subcommands."""
    subcommands = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    arguments = [action.dest for action in parser._actions if action.dest not in (SUPPRESS, "help", "print_config")]
    return [name for choices in subcommands for name in choices] or arguments


def watch_option(
    parser: LightningArgumentParser, name: str, around: Callable[[Any, Any], AbstractContextManager[None]]
) -> None:
    """Have an option of a parser applied inside ``around(arguments so far, value)``."""
    action = next(action for action in parser._actions if action.dest == name)

    class Watched(type(action)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if not args:  # jsonargparse makes copies of an action by calling it
                return super().__call__(**kwargs)
            with around(args[1], args[2]):
                return super().__call__(*args, **kwargs)

    action.__class__ = Watched


@contextmanager
def as_command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Have a process look as if it were started with these arguments, and afterwards as before.

    With several devices Lightning starts the other processes by ``sys.argv``, and takes the variables that it sets for
    them as a sign that they are there: the next run would find neither processes nor a group of its own.
    """
    command, environment = sys.argv, dict(os.environ)
    sys.argv = [command[0], *arguments]
    try:
        yield
    finally:
        sys.argv = command
        os.environ.clear()
        os.environ.update(environment)
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


CALLBACK_TWICE = "Found more than one stateful callback"
"""Lightning's RuntimeError for two callbacks of one state begins so: for the user a wrong argument, not a fault."""

_LONGEST_VALUE = 80

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


def refused_class(error: BaseException) -> type | None:
    """The class whose arguments jsonargparse was reading when it refused one, the innermost."""
    found, cause = None, error
    while cause is not None:
        traceback = cause.__traceback__
        while traceback is not None:
            found = traceback.tb_frame.f_locals.get("val_class", found)
            traceback = traceback.tb_next
        cause = cause.__cause__  # type: ignore[assignment]
    return found if isinstance(found, type) else None


def refusal(message: str) -> str:
    """One line for the tree of jsonargparse's attempts: the argument, and what stands deepest in the first branch.

    jsonargparse has one text for all that it tried, without a structure to ask.
    """
    if not message.startswith("Parser key"):
        way_out = "; `--config` names a file or a recipe that has them" if "arguments are required" in message else ""
        return " ".join(message.split()) + way_out
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
    if "Given value: NestedArg" in message and reasons[-1].startswith("Not a valid subclass"):
        return f"{path[0]}: its class is not named: give `--{path[0]} CLASS`, or a file or recipe as `--config`"
    given = re.search(r"Given value: (?!NestedArg)(.*)", message)
    if given is not None and not any("Got value" in reason for reason in reasons):
        reasons.append(f"Got value: {given[1]}")
    return f"{'.'.join(path)}: {'; '.join(dict.fromkeys(map(_without_whole, reasons)))}".removesuffix("; ")


def _without_whole(reason: str) -> str:
    """A reason without the value that was given where it is a whole configuration: the argument's name says more."""
    text, _, value = reason.partition("Got value: ")
    text = re.sub(r"Type \S+\[.* expects a function or a callable class: ", "", text)
    return text.strip() if len(value) > _LONGEST_VALUE else text + (f"Got value: {value}" if value else "")
