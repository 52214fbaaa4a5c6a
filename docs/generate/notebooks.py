"""Notebooks as pages, with the outputs that they were saved with."""

from __future__ import annotations

import re
from pathlib import Path

from nbconvert import MarkdownExporter

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ("quickstart", "own_data", "existing_project", "comparing_methods")


def notebooks() -> list[Path]:
    """All of them, as one reads them."""
    return [FOLDER / f"{name}.ipynb" for name in NAMES]


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    text, resources = MarkdownExporter().from_filename(str(path))
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
    outputs: dict[str, bytes] = resources["outputs"]
    for name in outputs:
        text = text.replace(f"]({name})", f"]({path.stem}-{name})")
    return text, {f"{path.stem}-{name}": content for name, content in outputs.items()}
