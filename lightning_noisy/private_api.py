"""Everything private of Lightning and jsonargparse that the package leans on, each with why.

``tests/test_private_api.py`` fails by name when a version no longer has it.
"""

from __future__ import annotations

import re

from lightning.pytorch.cli import LightningCLI

# The command line


class ConfigurationAloneCLI(LightningCLI):
    """LightningCLI whose configuration alone says what the model is."""

    def _parse_ckpt_path(self) -> None:
        """Not done: since Lightning 2.6 hyper-parameters of a checkpoint, only the plain ones, replace the model."""


ARGUMENTS_TWICE = "LightningCLI's args parameter"
"""So begins Lightning's warning where ``main`` and the process both have arguments; with ``tune`` they have."""

CALLBACK_TWICE = "Found more than one stateful callback"
"""Lightning's RuntimeError for two callbacks of one state begins so: for the user a wrong argument, not a fault."""

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


def refusal(message: str) -> str:
    """One line for the tree of jsonargparse's attempts: the argument, and what stands deepest in the first branch.

    jsonargparse has one text for all that it tried, without a structure to ask.
    """
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
