"""Notebooks as pages, with the outputs that they were saved with."""

from __future__ import annotations

from pathlib import Path

from nbconvert import MarkdownExporter

FOLDER = Path(__file__).parents[2] / "notebooks"


def notebooks() -> list[Path]:
    """All of them."""
    return sorted(FOLDER.glob("*.ipynb"))


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    text, resources = MarkdownExporter().from_filename(str(path))
    outputs: dict[str, bytes] = resources["outputs"]
    for name in outputs:
        text = text.replace(f"]({name})", f"]({path.stem}-{name})")
    return text, {f"{path.stem}-{name}": content for name, content in outputs.items()}
