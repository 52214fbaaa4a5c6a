r"""Formulas as MathML, which browsers show without scripts: ``$ ... $`` in a line and ``$$ ... $$`` alone in one."""

from __future__ import annotations

import logging
import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

LOG = logging.getLogger("mkdocs.hooks.formulas")
"""Its warnings end a strict build."""
REPLACED = {
    r"\arg\max": r"\operatorname{argmax}",
    r"\lVert": r"\Vert",
    r"\rVert": r"\Vert",
    r"\|": r"\Vert ",
    r"\_": "_",
    r"\Big\Vert": r"\Vert",
    r"\big\Vert": r"\Vert",
    r"\Big\lfloor": r"\lfloor",
    r"\Big\rfloor": r"\rfloor",
}
"""What the converter does not know."""


def mathml(latex: str, display: bool = False) -> str:
    """A formula as one line of MathML."""
    for known, other in REPLACED.items():
        latex = latex.replace(known, other)
    made = str(convert(" ".join(latex.split()), display="block" if display else "inline"))
    if "\\" in made:
        LOG.warning("Something of the formula %s is unknown to the converter.", latex)
    return made


class Formula(InlineProcessor):
    """Takes a formula out of the text."""

    def handleMatch(  # type: ignore[override]  # noqa: N802
        self, match: re.Match[str], data: str
    ) -> tuple[str | Element, int, int]:
        """The place that Markdown fills with the formula in the end."""
        display = match[0].startswith("$$")
        html = mathml(match[1], display)
        return self.md.htmlStash.store(f'<span class="formula">{html}</span>' if display else html), *match.span()


class Formulas(Extension):
    """Formulas in Markdown."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Before emphasis and escapes, after code."""
        md.inlinePatterns.register(Formula(r"\$\$(.+?)\$\$", md), "display_formula", 186)
        md.inlinePatterns.register(Formula(r"(?<![\w$\\])\$(?! )([^$\n]+?)(?<! )\$(?![\w$])", md), "formula", 185)


def makeExtension(**options: Any) -> Formulas:  # noqa: N802
    """As Markdown looks for it."""
    return Formulas(**options)
