"""What MkDocs calls while it builds the site: pages that are made of the code and of records, links, formulas."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for `mkdocs` as well, which does not look where it is called

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

from docs.generate import api, commands, method_pages, notebooks  # noqa: E402
from docs.generate.formulas import Formulas  # noqa: E402
from docs.generate.methods import ROOMS, methods  # noqa: E402
from docs.which_method import linked  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
LINKS = {
    r"\.\./benchmarks/results/": "results/",
    r"\.\./notebooks/([\w-]+)\.ipynb": r"notebooks/\1.md",
    r"\.\./README\.md": "index.md",
    r"\.\./CHANGELOG\.md": "changelog.md",
}
"""Files beside docs/ -> where the site has them."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Formulas, and the pages that are made in the navigation."""
    config.markdown_extensions.append(Formulas())  # type: ignore[arg-type]
    made = {"METHODS": _method_navigation(), "API": _api_navigation(), "NOTEBOOKS": _notebook_navigation()}
    config.nav = _filled(config.nav, made)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made, and what stands beside docs/."""
    for uri, content in _generated():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **options: Any) -> str:
    """Links to files beside docs/ lead to their place in the site, and names of methods to their pages."""
    for pattern, place in LINKS.items():
        markdown = re.sub(rf"\]\({pattern}", f"]({place}", markdown)
    if "/" not in page.file.src_uri:
        markdown = re.sub(r"^\| `(\w+)` \|", _linked_method, markdown, flags=re.M)
    return linked(markdown) if page.file.src_uri == "which_method.md" else markdown


def _linked_method(match: re.Match[str]) -> str:
    """The first cell of a table, with a link where it is a method."""
    return f"| [`{match[1]}`](methods/{match[1]}.md) |" if match[1] in methods() else match[0]


def _generated() -> Iterator[tuple[str, str | bytes]]:
    """Place in the site, and content."""
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text()
    yield "commands.md", commands.page()
    yield "methods/index.md", method_pages.index()
    for method in methods().values():
        yield f"methods/{method.name}.md", method_pages.page(method)
        for name, content in method_pages.pictures(method).items():
            yield f"methods/pictures/{name}", content
    yield "api/index.md", api.index()
    for room in api.rooms():
        yield f"api/{api.file_name(room)}", api.page(room)
    for path in notebooks.notebooks():
        text, outputs = notebooks.page(path)
        yield f"notebooks/{path.stem}.md", text
        for name, content in outputs.items():
            yield f"notebooks/{name}", content
    for path in sorted(RESULTS.iterdir()):
        is_table = path.suffix == ".md"
        yield f"results/{path.name}", f"# {path.stem}\n\n{path.read_text()}" if is_table else path.read_bytes()


def _filled(entries: Any, made: dict[str, list[Any]]) -> Any:
    """The navigation with the made pages in the place of their names."""
    if isinstance(entries, dict):
        return {title: _filled(value, made) for title, value in entries.items()}
    if isinstance(entries, list):
        return [
            part
            for entry in entries
            for part in (made[entry] if isinstance(entry, str) and entry in made else [_filled(entry, made)])
        ]
    return entries


def _method_navigation() -> list[Any]:
    return [
        {group.capitalize(): [f"methods/{name}.md" for name, method in methods().items() if method.group == group]}
        for group in ROOMS
    ]


def _api_navigation() -> list[Any]:
    """The rooms, those of pure functions in a part of their own."""
    pages = {room: f"api/{api.file_name(room)}" for room in api.rooms()}
    pure = {room.removeprefix("functional."): pages.pop(room) for room in list(pages) if room.startswith("functional.")}
    entries = [{room or "lightning_noisy": page} for room, page in pages.items()]
    return [*entries, {"functional": [{name: page} for name, page in sorted(pure.items())]}]


def _notebook_navigation() -> list[Any]:
    return [f"notebooks/{path.stem}.md" for path in notebooks.notebooks()]
