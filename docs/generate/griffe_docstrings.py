"""Docstrings as Markdown where mkdocstrings reads them."""

from __future__ import annotations

from typing import Any

import griffe

from docs.generate.docstrings import markdown


class Docstrings(griffe.Extension):
    """Rewrites every docstring of the package."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        """An object that may have one."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
