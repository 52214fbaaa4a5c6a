"""The page of the commands: the overview that ``lightning-noisy`` prints, and what each says of itself."""

from __future__ import annotations

from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from unittest.mock import patch

from docs.generate.method_pages import table
from lightning_noisy.cli import run
from lightning_noisy.cli.overview import COMMANDS

_LONG = 60
"""Lines from which on a help is folded."""
_INTRO = """# Commands

`lightning-noisy COMMAND --help` prints what stands here. `lightning-noisy --version` says what is installed.

`fit`, `validate`, `test` and `predict` are Lightning's own command line: every argument of a model, a data module, a
callback and the Trainer is an option, and `--config` takes a file or the name of a [recipe](recipes.md).
"""


def page() -> str:
    """The whole page."""
    rows = [[f"[`{name}`](#{name})", line] for name, line in COMMANDS.items()]
    parts = [
        f"## {name}\n\n{line[0].upper()}{line[1:]}.\n\n{_shown(help_text(name))}" for name, line in COMMANDS.items()
    ]
    return "\n\n".join([_INTRO, table(["command", "what it does"], rows), *parts]) + "\n"


@cache
def help_text(command: str) -> str:
    """What ``--help`` prints, 80 signs wide."""
    printed = StringIO()
    given = {"COLUMNS": "80", "NO_COLOR": "1"}
    called = patch("sys.argv", ["lightning-noisy", command, "--help"])
    with called, patch.dict("os.environ", given), redirect_stdout(printed), suppress(SystemExit):
        run()
    return printed.getvalue().strip()


def _shown(text: str) -> str:
    """As it is, folded where it is long."""
    block = f"```text\n{text}\n```"
    if text.count("\n") < _LONG:
        return block
    return '??? note "all options"\n\n' + "\n".join(f"    {line}".rstrip() for line in block.splitlines())
